import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { inside, removeAll, uniqueName } from '../support/container.ts';
import { importPython, startPython } from '../support/debian.ts';
import { readIfThere, stasis, until } from '../support/stack.ts';

interface Kind {
  readonly what: string;
  /** Makes what is to survive. */
  readonly before: string;
  /** Uses it: fails where it has not survived. */
  readonly after: string;
  readonly flags?: string[];
}

const kinds: readonly Kind[] = [
  {
    what: 'a TCP connection to itself, with bytes on their way',
    before: `
server = socket.socket(); server.bind(('127.0.0.1', 4000)); server.listen()
client = socket.create_connection(('127.0.0.1', 4000))
accepted = server.accept()[0]
client.sendall(b'before')`,
    after: `
assert accepted.recv(6) == b'before'
accepted.sendall(b'answer'); assert client.recv(6) == b'answer'
another = socket.create_connection(('127.0.0.1', 4000)); server.accept()[0].sendall(b'new')
assert another.recv(3) == b'new'`,
  },
  {
    what: 'UDP sockets that know each other',
    before: `
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.bind(('127.0.0.1', 4001))
two = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); two.connect(('127.0.0.1', 4001))`,
    after: `two.send(b'hello'); assert one.recv(9) == b'hello'`,
  },
  {
    what: 'Unix sockets: a stream by name, a pair, datagrams, with bytes waiting',
    before: `
server = socket.socket(socket.AF_UNIX); server.bind('/socket'); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect('/socket'); accepted = server.accept()[0]
client.sendall(b'waiting')
left, right = socket.socketpair()
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); box.bind('/box')
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); sender.connect('/box'); sender.send(b'letter')`,
    after: `
assert accepted.recv(7) == b'waiting'
left.sendall(b'x'); assert right.recv(1) == b'x'
assert box.recv(9) == b'letter'
sender.send(b'more'); assert box.recv(9) == b'more'
again = socket.socket(socket.AF_UNIX); again.connect('/socket')`,
  },
  {
    what: 'pipes and FIFOs with bytes waiting, between processes',
    before: `
reader, writer = os.pipe()
os.write(writer, b'p' * 5000)
os.mkfifo('/fifo'); fifo = os.open('/fifo', os.O_RDWR); os.write(fifo, b'fifo')
child = subprocess.Popen(['/bin/cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)`,
    after: `
assert os.read(reader, 9999) == b'p' * 5000
assert os.read(fifo, 9) == b'fifo'
child.stdin.write(b'through'); child.stdin.flush()
assert os.read(child.stdout.fileno(), 9) == b'through'`,
  },
  {
    what: 'file locks of two kinds, still held',
    before: `
flocked = open('/flock', 'w'); fcntl.flock(flocked, fcntl.LOCK_EX)
posix = open('/posix', 'w'); fcntl.lockf(posix, fcntl.LOCK_EX, 10)`,
    after: `
for line in ("fcntl.flock(open('/flock', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)",
             "fcntl.lockf(open('/posix', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB, 10)"):
    other = subprocess.run(['/usr/bin/python3', '-c', 'import fcntl; ' + line], capture_output=True)
    assert b'BlockingIOError' in other.stderr, other.stderr`,
  },
  {
    what: 'inotify watches',
    before: `
watcher = libc.inotify_init1(0)
os.makedirs('/watched', exist_ok=True); os.makedirs('/run/watched', exist_ok=True)
assert libc.inotify_add_watch(watcher, b'/watched', 0x100) > 0
assert libc.inotify_add_watch(watcher, b'/run/watched', 0x100) > 0`,
    after: `
for folder in ('/watched', '/run/watched'):
    open(folder + '/new', 'w').close()
    assert b'new' in os.read(watcher, 4096), folder`,
  },
  {
    what: 'files that are open and removed, small and large, on a tmpfs',
    before: `
files = []
for size in (10, 40_000_000):
    file = open('/run/removed', 'wb+'); file.write(b'r' * size); file.flush(); os.unlink('/run/removed')
    files.append(file)`,
    after: `
for file, size in zip(files, (10, 40_000_000)):
    file.seek(0); assert file.read() == b'r' * size
    file.write(b'more'); file.flush(); assert os.fstat(file.fileno()).st_size == size + 4`,
    flags: ['--mount', 'type=tmpfs,src=tmpfs,dst=/run,options=size=100m'],
  },
  {
    what: 'nameless memory files, shared mappings, System V and POSIX shared memory, a message queue',
    before: `
import mmap, multiprocessing.shared_memory
memory = os.memfd_create('named'); os.write(memory, b'memfd')
shared = mmap.mmap(-1, 4096); shared[:6] = b'shared'
if os.fork() == 0:
    while True: shared[100] = (shared[100] + 1) % 256; time.sleep(0.01)
posix = multiprocessing.shared_memory.SharedMemory('kept', create=True, size=4096, track=False); posix.buf[:5] = b'posix'
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0x5354, 4096, 0o1600); assert segment >= 0
address = libc.shmat(segment, None, 0); ctypes.memmove(address, b'sysv', 4)
class Message(ctypes.Structure): _fields_ = [('kind', ctypes.c_long), ('text', ctypes.c_char * 8)]
queue = libc.msgget(0x5354, 0o1600); assert queue >= 0
assert libc.msgsnd(queue, ctypes.byref(Message(1, b'queued')), 8, 0) == 0`,
    after: `
assert os.pread(memory, 9, 0) == b'memfd'
assert shared[:6] == b'shared'; seen = shared[100]; time.sleep(0.5); assert shared[100] != seen
assert bytes(posix.buf[:5]) == b'posix'
assert ctypes.string_at(address, 4) == b'sysv'
message = Message(); assert libc.msgrcv(queue, ctypes.byref(message), 8, 0, 0) == 8; assert message.text == b'queued'`,
  },
  {
    what: 'epoll, eventfd, timerfd and signalfd, as event loops have them',
    before: `
import select
event = os.eventfd(3); timer = libc.timerfd_create(1, 0)
class Time(ctypes.Structure): _fields_ = [(name, ctypes.c_long) for name in ('every', 'nanos', 'first', 'more')]
assert libc.timerfd_settime(timer, 0, ctypes.byref(Time(1, 0, 1, 0)), None) == 0
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
mask = ctypes.create_string_buffer(128); libc.sigemptyset(mask); libc.sigaddset(mask, 10)
signals = libc.signalfd(-1, mask, 0); os.kill(os.getpid(), signal.SIGUSR1)
poll = select.epoll()
for descriptor in (event, timer, signals): poll.register(descriptor, select.EPOLLIN)`,
    after: `
time.sleep(1.2)
assert sorted(d for d, _ in poll.poll(5)) == sorted([event, timer, signals])
assert os.eventfd_read(event) == 3
assert os.read(signals, 128)[:1] == bytes([10])`,
  },
  {
    what: 'four hundred threads',
    before: `
counts = [0] * 400
def work(i):
    while True: counts[i] += 1; time.sleep(0.2)
for i in range(400): threading.Thread(target=work, args=(i,), daemon=True).start()
while not all(counts): time.sleep(0.1)`,
    after: `
seen = list(counts); time.sleep(3)
still = [i for i in range(400) if counts[i] == seen[i]]
assert not still, still`,
  },
  {
    what: 'a tree of processes with sessions, groups, a zombie and niceness',
    before: `
zombie = os.fork()
if zombie == 0: os._exit(7)
def leader():
    os.setsid(); os.nice(5)
loop = subprocess.Popen(['/bin/sh', '-c', 'while :; do sleep 0.1; done'], preexec_fn=leader)
time.sleep(0.5)`,
    after: `
assert os.waitstatus_to_exitcode(os.waitpid(zombie, 0)[1]) == 7
assert os.getsid(loop.pid) == loop.pid and os.getpriority(os.PRIO_PROCESS, loop.pid) == 5
assert loop.poll() is None`,
  },
  {
    what: 'a pseudo terminal of its own, with a program on it',
    before: `
import pty
child, master = pty.fork()
if child == 0: os.execv('/bin/cat', ['cat'])
os.write(master, b'before\\n'); time.sleep(0.5); os.read(master, 4096)`,
    after: `
os.write(master, b'after\\n')
shown = b''
while shown.count(b'after') < 2: shown += os.read(master, 4096) # the terminal's echo, and cat's`,
  },
  {
    what: 'a mount made inside, and a file open on it',
    before: `
os.makedirs('/inner')
assert libc.mount(b'none', b'/inner', b'tmpfs', 0, None) == 0
inner = open('/inner/file', 'w+'); inner.write('inner'); inner.flush()`,
    after: `
inner.seek(0); assert inner.read() == 'inner'
assert open('/inner/file').read() == 'inner'`,
    flags: ['--privileged'],
  },
  {
    // To zfs-fuse its root is an ordinary user, who cannot give files away.
    what: 'a user namespace, with a file of its root and a process of another user',
    before: `
assert open('/proc/self/uid_map').read().split() == ['0', '100000', '65536']
owned = open('/owned', 'w')
other = subprocess.Popen(['/bin/sh', '-c', 'while :; do sleep 0.1; done'], user=7, group=8)`,
    after: `
assert open('/proc/self/uid_map').read().split() == ['0', '100000', '65536']
assert (os.fstat(owned.fileno()).st_uid, os.stat('/usr').st_uid) == (0, 0)
assert other.poll() is None and os.stat('/proc/%d' % other.pid).st_uid == 7
assert subprocess.run(['/bin/true'], user=9).returncode == 0`,
    flags: ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536'],
  },
];

suite('kinds of container that are checkpointed, rewound and cloned', () => {
  const started: string[] = [];
  before(importPython);
  after(() => removeAll(...started));

  for (const { what, before: make, after: use, flags } of kinds) {
    test(`${what}: goes on in a clone, in the source, and after a rewind`, async () => {
      const name = uniqueName('kind');
      const clone = `${name}-1`;
      started.push(clone, name);
      await startPython(name, make, flags, use);
      await stasis('checkpoint', name, '--name', 'c', '--require-memory');
      await stasis('clone', name, '--from', 'c');
      await check(clone);
      await check(name);
      await stasis('restore', name, '--snapshot', 'c', '--require-memory');
      await check(name);
    });
  }

  async function check(name: string): Promise<void> {
    const root = await inside(name, '/');
    writeFileSync(`${root}check`, '');
    const said = await until('what is checked', () => readIfThere(`${root}checked`) || undefined);
    assert.equal(said, 'good');
  }
});
