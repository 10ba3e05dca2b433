// A ttrpc server that answers Connect at once, in a process of its own: node echo-server.ts SOCKET
import { createServer } from 'node:net';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { Server, type Handlers } from '../../../ttrpc/index.ts';

const connect: Handlers<TaskDefinition>['connect'] = () =>
  Promise.resolve({ shimPid: process.pid, taskPid: process.pid, version: '2' });
const none = (): Promise<never> => Promise.reject(new Error('only Connect is served here'));
const others = Object.keys(TaskDefinition.methods).map((name) => [name, none]);
new Server()
  .register(TaskDefinition, { ...(Object.fromEntries(others) as Handlers<TaskDefinition>), connect })
  .listen(createServer().listen(process.argv[2], () => process.send?.('ready')));
