// CRC-32 as zip archives use it: Node's own where it has one (since 20.15 and 22.2), otherwise by a
// table.

import zlib from 'node:zlib';

/** Remainders of all bytes by the polynomial, whose bits are reversed. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
    let remainder = byte;
    for (let bit = 0; bit < 8; bit++) {
        remainder = remainder & 1 ? (remainder >>> 1) ^ 0xedb88320 : remainder >>> 1;
    }
    return remainder;
});

/**
 * `next(chunk, previous)` is the checksum of what had the checksum `previous`, and the chunk after
 * it.
 */
const next = zlib.crc32 ?? byTable;

export function byTable(chunk, previous) {
    let remainder = ~previous;
    for (let i = 0; i < chunk.length; i++) {
        remainder = TABLE[(remainder ^ chunk[i]) & 0xff] ^ (remainder >>> 8);
    }
    return ~remainder >>> 0;
}

/** The checksum of some chunks one after the other. */
export class Checksum {
    #value = 0;

    add(chunk) {
        this.#value = next(chunk, this.#value);
    }

    value() {
        return this.#value;
    }
}
