import { Code, codeOf, messageOf, StasisError } from '../../src/errors.ts';

/**
 * How messages end for each code. containerd's own shim ends them so, and its clients (from 2.0 on) show what came
 * unchanged, so that people and scripts know these words.
 */
const endings: Partial<Record<Code, string>> = {
  [Code.InvalidArgument]: 'invalid argument',
  [Code.NotFound]: 'not found',
  [Code.AlreadyExists]: 'already exists',
  [Code.FailedPrecondition]: 'failed precondition',
  [Code.Unimplemented]: 'not implemented',
  [Code.Unavailable]: 'unavailable',
};

/** An error in the words that containerd's clients expect. */
export function asClientsKnow(error: unknown): unknown {
  const code = codeOf(error);
  const ending = endings[code];
  const message = messageOf(error);
  if (ending === undefined || message.endsWith(ending)) return error;
  return new StasisError(code, `${message}: ${ending}`, { cause: error });
}

type AnyHandler = (request: never, context: never) => Promise<unknown>;

/** The same handlers, with their errors in those words. */
export function withKnownErrors<H extends Readonly<Record<string, AnyHandler>>>(handlers: H): H {
  const wrapped = Object.entries(handlers).map(([name, handler]) => [
    name,
    async (request: never, context: never): Promise<unknown> => {
      try {
        return await handler(request, context);
      } catch (error) {
        throw asClientsKnow(error);
      }
    },
  ]);
  return Object.fromEntries(wrapped) as H;
}
