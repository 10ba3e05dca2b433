// HPACK's Huffman code (RFC 7541, appendix B). The code is canonical, so the lengths alone define it.

/** Length in bits of the code of each octet, then of EOS, one base-36 digit each. */
const lengths =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca' +
  'd67777777777777777777777878djde6f56565666577666567655677777fbeds' +
  'kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn' +
  'qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq' +
  'u';

const EOS = 256;
const LONGEST = 30;

/** For each length: its first code, the number of codes, and where their symbols start in `symbols`. */
const first: number[] = [];
const count: number[] = [];
const offset: number[] = [];
const symbols: number[] = [];

/** Filled at the first use: most answers of a server on this host hold no Huffman string at all. */
function prepare(): void {
  const bits = Array.from(lengths, (digit) => parseInt(digit, 36));
  let code = 0;
  for (let length = 0; length <= LONGEST; length++) {
    code *= 2;
    const members = bits.flatMap((value, symbol) => (value === length && length > 0 ? [symbol] : []));
    first.push(code);
    count.push(members.length);
    offset.push(symbols.length);
    symbols.push(...members);
    code += members.length;
  }
}

/**
 * Decodes a Huffman string.
 * @throws Error when it holds EOS, or is not padded with less than a byte of ones (RFC 7541, 5.2)
 */
export function decodeHuffman(input: Uint8Array): Buffer {
  if (symbols.length === 0) prepare();
  const output: number[] = [];
  let code = 0;
  let length = 0;
  for (const byte of input) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((byte >> bit) & 1);
      length++;
      const index = code - (first[length] ?? 0);
      if (index >= 0 && index < (count[length] ?? 0)) {
        const symbol = symbols[(offset[length] ?? 0) + index] ?? EOS;
        if (symbol === EOS) throw new Error('a Huffman string holds EOS');
        output.push(symbol);
        code = 0;
        length = 0;
      }
    }
  }
  if (length > 7 || code !== 2 ** length - 1) throw new Error('a Huffman string is badly padded');
  return Buffer.from(output);
}
