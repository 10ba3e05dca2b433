import type { Connection } from './context.ts';
import type { Frame } from './frame.ts';

/** What both ends of a server's connections have agreed on beyond the protocol, in the types and flags that it leaves free. Must not throw. */
export interface Extension {
  /** Whether requests may come in another order than that of their streams: the other side has seen to it that no number comes twice. */
  readonly anyOrder?: boolean;
  /** A frame whose type the protocol does not know. */
  receive(connection: Connection, frame: Frame): void;
  /**
   * A call is answered whose request had flags that the protocol does not know.
   * @param frame the answer @returns the frame that is sent in its place, if any
   */
  answer(connection: Connection, frame: Uint8Array): Uint8Array | undefined;
}
