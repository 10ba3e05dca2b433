import { Internal } from '../errors.ts';

/**
 * The records of a `zfs send` stream, as far as they say which objects it is about. Each begins with 312 bytes:
 *
 * | offset | bytes | all records                   |
 * | ------ | ----- | ----------------------------- |
 * | 0      | 4     | type                          |
 * | 4      | 4     | bytes that follow (BEGIN)     |
 *
 * | type | record         | object at | bytes that follow                                                    |
 * | ---- | -------------- | --------- | -------------------------------------------------------------------- |
 * | 0    | BEGIN          |           | at 4; at 8 the magic number                                          |
 * | 1    | OBJECT         | 8         | at 36 if not 0, else at 28 rounded up to 8: the bonus, see below     |
 * | 2    | FREEOBJECTS    |           | none                                                                 |
 * | 3    | WRITE          | 8         | at 32; where the byte at 50 is not 0, at 96                          |
 * | 4    | FREE           | 8         | none; what is freed begins at 16, of the length at 24, -1: to the end |
 * | 5    | END            |           | none                                                                 |
 * | 6    | WRITE_BYREF    | 8         | none                                                                 |
 * | 7    | SPILL          | 8         | at 16; where the byte at 33 is not 0, at 40                          |
 * | 8    | WRITE_EMBEDDED | 8         | at 52 rounded up to 8                                                |
 * | 9    | OBJECT_RANGE   |           | none                                                                 |
 *
 * The bonus of a file or folder is a `znode_phys_t` up to version 4 of its layout (bonus type 17, at 20): the
 * size at 80, the parent's
 * object at 88, that of the folder of extended attributes at 104, flags at 120. Newer ones have no fixed layout.
 * Sources: zfs_ioctl.h and zfs_znode.h of OpenZFS 2.3 and of zfs-fuse 0.7.
 */
const RECORD = 312;
const MAGIC = 0x2f5bacbacn;
const ZNODE = 17;
const Z_SIZE = 80;
const Z_PARENT = 88;
const Z_XATTR = 104;
const Z_FLAGS = 120;
/** A file or folder that holds extended attributes, and has no name that anybody sees. */
const HIDDEN = 1n;
const TO_THE_END = 0xffff_ffff_ffff_ffffn;
/** What an object holds, at 16 of OBJECT. */
const DIRECTORY_CONTENTS = 20;

const type = {
  begin: 0,
  object: 1,
  freeObjects: 2,
  write: 3,
  free: 4,
  end: 5,
  byref: 6,
  spill: 7,
  embedded: 8,
  range: 9,
};

/** What may differ between two snapshots, by object number, which is the inode number of a file or folder. */
export interface ChangedObjects {
  /** All that may differ, and some that do not: streams speak of whole blocks of 32 objects. */
  readonly objects: ReadonlySet<number>;
  /** Those of them whose content may have, the entries of a folder included. */
  readonly contents: ReadonlySet<number>;
  /** Those of them that have no extended attributes, and had none. */
  readonly plain: ReadonlySet<number>;
  /** Extended attributes changed of which it is not told whose they are: any file's may have. */
  readonly anyAttributes: boolean;
}

interface Hidden {
  readonly parent: number;
  readonly isFolder: boolean;
}

/** Takes a stream apart, in any portions; pure. What files hold is passed over. */
export class SendStreamReader {
  readonly #objects = new Set<number>();
  readonly #contents = new Set<number>();
  readonly #plain = new Set<number>();
  readonly #sizes = new Map<number, number>();
  /** By object: folders of extended attributes, whose parents are files, and the attributes in them. */
  readonly #hidden = new Map<number, Hidden>();
  #kept: Buffer = Buffer.alloc(0);
  #skip = 0;
  #begun = false;
  #ended = false;

  /** @throws Internal where this is no such stream */
  push(chunk: Buffer): void {
    const skipped = Math.min(this.#skip, chunk.length);
    this.#skip -= skipped;
    let bytes = chunk.subarray(skipped);
    if (this.#kept.length > 0) bytes = Buffer.concat([this.#kept, bytes]);
    for (;;) {
      const taken = bytes.length < RECORD ? 0 : this.#record(bytes);
      if (taken === 0) break;
      this.#skip = Math.max(0, taken - bytes.length);
      bytes = bytes.subarray(taken);
    }
    this.#kept = Buffer.from(bytes);
  }

  /** @throws Internal where the stream is cut off */
  end(): ChangedObjects {
    if (!this.#ended || this.#skip > 0 || this.#kept.length > 0)
      throw new Internal('a zfs send stream is cut off');
    const anyAttributes = [...this.#hidden.values()].map((hidden) => this.#addHost(hidden)).includes(false);
    return { objects: this.#objects, contents: this.#contents, plain: this.#plain, anyAttributes };
  }

  /** Adds the file that a hidden object belongs to; false where the stream does not tell which that is. */
  #addHost(hidden: Hidden): boolean {
    const folder = hidden.isFolder ? hidden : this.#hidden.get(hidden.parent);
    if (folder === undefined) return false;
    this.#objects.add(folder.parent);
    this.#plain.delete(folder.parent);
    return true;
  }

  /** Answers the length of the record with what follows it; 0 where more bytes are needed. */
  #record(bytes: Buffer): number {
    const kind = bytes.readUInt32LE(0);
    if (!this.#begun) {
      if (kind !== type.begin || bytes.readBigUInt64LE(8) !== MAGIC)
        throw new Internal('this is no zfs send stream');
      this.#begun = true;
    }
    switch (kind) {
      case type.begin:
        return RECORD + bytes.readUInt32LE(4);
      case type.object: {
        const bonus = bytes.readUInt32LE(36) || up8(bytes.readUInt32LE(28));
        if (bytes.length < RECORD + bonus) return 0;
        this.#object(bytes, bonus);
        return RECORD + bonus;
      }
      case type.write:
        this.#add(bytes);
        return RECORD + number(bytes, bytes[50] === 0 ? 32 : 96);
      case type.spill:
        this.#add(bytes);
        return RECORD + number(bytes, bytes[33] === 0 ? 16 : 40);
      case type.embedded:
        this.#add(bytes);
        return RECORD + up8(bytes.readUInt32LE(52));
      case type.byref:
        this.#add(bytes);
        return RECORD;
      case type.free:
        // Each object has one that frees what lies beyond its end, changed or not.
        if (!this.#isBeyondEnd(bytes)) this.#add(bytes);
        return RECORD;
      case type.end:
        this.#ended = true;
        return RECORD;
      case type.freeObjects:
      case type.range:
        return RECORD;
      default:
        throw new Internal(`a zfs send stream has a record of type ${kind}`);
    }
  }

  #add(bytes: Buffer): void {
    this.#objects.add(number(bytes, 8));
    this.#contents.add(number(bytes, 8));
  }

  #isBeyondEnd(bytes: Buffer): boolean {
    const size = this.#sizes.get(number(bytes, 8));
    return bytes.readBigUInt64LE(24) === TO_THE_END && size !== undefined && number(bytes, 16) >= size;
  }

  #object(bytes: Buffer, bonus: number): void {
    const object = number(bytes, 8);
    this.#objects.add(object);
    if (bytes.readUInt32LE(20) !== ZNODE || bonus < Z_FLAGS + 8) return;
    const znode = bytes.subarray(RECORD, RECORD + bonus);
    const isHidden = (znode.readBigUInt64LE(Z_FLAGS) & HIDDEN) !== 0n;
    this.#sizes.set(object, number(znode, Z_SIZE));
    const isFolder = bytes.readUInt32LE(16) === DIRECTORY_CONTENTS;
    if (isHidden) this.#hidden.set(object, { parent: number(znode, Z_PARENT), isFolder });
    else if (number(znode, Z_XATTR) === 0) this.#plain.add(object);
  }
}

function up8(length: number): number {
  return Math.ceil(length / 8) * 8;
}

function number(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64LE(at));
}
