// What Node 24 has written for each.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { lastWords } from '../../../../shim/guard/last-words.ts';

const uncaught = (text: string, properties = ''): string => `file:///usr/lib/stasis/shim.mjs:1
some.code();
     ^

${text}
    at file:///usr/lib/stasis/shim.mjs:1:9
    at ModuleJob.run (node:internal/modules/esm/module_job:561:25)
    at async node:internal/modules/esm/loader:647:26${properties}

Node.js v24.21.0
`;

const outOfMemory = `
<--- Last few GCs --->

[24628:0x15bb9000]       78 ms: Mark-Compact 35.5 (52.5) -> 35.2 (100.5) MB, allocation failure; scavenge might not succeed

FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
----- Native stack trace -----

 1: 0x931db0  [/usr/lib/stasis/node]
 2: 0x75968e node::OOMErrorHandler(char const*, v8::OOMDetails const&) [/usr/lib/stasis/node]
10: 0x1add9b6  [/usr/lib/stasis/node]
`;

const samples: readonly (readonly [what: string, text: string, telling: string])[] = [
  ['an exception that nobody caught', uncaught('Error: broken'), 'Error: broken'],
  [
    'one with properties and a cause',
    uncaught(
      'Error: broken',
      " {\n  code: 5,\n  [cause]: Error: inner\n      at file:///usr/lib/stasis/shim.mjs:1:51 {\n    code: 'X'\n  }\n}",
    ),
    'Error: broken',
  ],
  [
    'one whose text has several lines',
    uncaught(
      'AssertionError [ERR_ASSERTION]: Expected values to be equal:\n\n{\n  a: 1\n}\n\nshould equal\n\n{\n  a: 2\n}',
    ),
    'AssertionError [ERR_ASSERTION]: Expected values to be equal:',
  ],
  [
    'a text that was thrown',
    'node:internal/modules/run_main:107\n    triggerUncaughtException(\n    ^\na string\n(Use `node --trace-uncaught ...` to show where the exception was thrown)\n\nNode.js v24.21.0\n',
    'a string',
  ],
  [
    'a program that is cut off',
    "file:///usr/lib/stasis/shim.mjs:1\nfoo bar\n    ^^^\n\nSyntaxError: Unexpected identifier 'bar'\n    at compileSourceTextModule (node:internal/modules/esm/utils:319:16)\n\nNode.js v24.21.0\n",
    "SyntaxError: Unexpected identifier 'bar'",
  ],
  [
    'the native-call library that is not there',
    uncaught(
      "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'koffi' imported from /usr/lib/stasis/shim.mjs",
      " {\n  code: 'ERR_MODULE_NOT_FOUND'\n}",
    ),
    "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'koffi' imported from /usr/lib/stasis/shim.mjs",
  ],
  [
    'one of another processor, or half of it',
    uncaught('Error: /usr/lib/stasis/koffi.node: file too short', " {\n  code: 'ERR_DLOPEN_FAILED'\n}"),
    'Error: /usr/lib/stasis/koffi.node: file too short',
  ],
  [
    'no room in the heap',
    outOfMemory,
    'FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory',
  ],
  [
    "a mistake of V8's",
    '\n\n#\n# Fatal error in , line 0\n# Check failed: node->IsInUse().\n#\n#\n#\n#FailureMessage Object: 0x7ffc2f0c\n----- Native stack trace -----\n\n 1: 0x931db0  [/usr/lib/stasis/node]\n',
    'Check failed: node->IsInUse().',
  ],
  [
    'what the program says itself, of several lines',
    'containerd-shim-stasis-v2: /etc/stasis/config.toml:1:9: not valid TOML:\n1:  nonsense\n           ^\n',
    '/etc/stasis/config.toml:1:9: not valid TOML:',
  ],
  ['no such program', '/usr/lib/stasis/node: bad option: --old\n', '/usr/lib/stasis/node: bad option: --old'],
  [
    'a library that is not there',
    'node: error while loading shared libraries: libm.so.6: cannot open shared object file\n',
    'node: error while loading shared libraries: libm.so.6: cannot open shared object file',
  ],
  ["libc's own", 'free(): invalid pointer\n', 'free(): invalid pointer'],
  ['a shell that tells of its child', 'Killed\n', 'Killed'],
  [
    'nothing but where it was',
    '----- Native stack trace -----\n\n 1: 0x931db0  [/usr/lib/stasis/node]\n\n----- JavaScript stack trace -----\n\n1: file:///tmp/abort.mjs:1:9\n2: run (node:internal/modules/esm/module_job:561:25)\n\n\n',
    '',
  ],
  ['a warning', '(node:12) ExperimentalWarning: something\n(Use `node --trace-warnings ...`)\n', ''],
  ['nothing', '', ''],
];

suite('the line that tells why a worker has ended', () => {
  for (const [what, text, telling] of samples) test(what, () => assert.equal(lastWords(text), telling));

  test('is cut where it is very long', () => {
    const said = lastWords(uncaught(`Error: ${'x'.repeat(5000)}`));
    assert.equal(said.length, 301);
  });
});
