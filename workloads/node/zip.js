// The directory of a zip archive, which the standard library can't read. All that it says is taken
// for a claim.

/** Compression methods. */
const STORED = 0;
export const DEFLATED = 8;

const END = { signature: 0x06054b50, bytes: 22 };
const ENTRY = { signature: 0x02014b50, bytes: 46 };
const LOCAL = { signature: 0x04034b50, bytes: 30 };

const MAX_COMMENT_BYTES = 0xffff;

/** Largest directory that is read into memory: 1 KiB for each of 65536 entries. */
const MAX_DIRECTORY_BYTES = 64 * 2 ** 20;

/** Systems whose archives hold the mode of Unix: itself, and macOS. */
const UNIX_MODES = [3, 19];
const MODE_TYPE = 0o170_000;
const MODE_FILE_OR_DIRECTORY = [0, 0o040_000, 0o100_000];

/** Reads the directory of an archive of this length: a list of entries. */
export async function readDirectory(file, archiveBytes, maxEntries) {
    const tailStart = Math.max(0, archiveBytes - END.bytes - MAX_COMMENT_BYTES);
    const tail = await readAt(file, tailStart, archiveBytes - tailStart);
    const at = endRecord(tail);
    const count = tail.readUInt16LE(at + 10);
    const bytes = tail.readUInt32LE(at + 12);
    const claimedStart = tail.readUInt32LE(at + 16);
    if (count === 0xffff || bytes === 0xffffffff || claimedStart === 0xffffffff) {
        throw new Error('it is a zip64 archive, which this program does not read');
    }
    if (count > maxEntries) {
        throw new Error(`it holds ${count} entries, more than ${maxEntries}`);
    }
    // The directory ends where its end record starts. Offsets are too small by what was put in
    // front of the archive.
    const start = tailStart + at - bytes;
    const prefix = start - claimedStart;
    if (prefix < 0 || start < 0 || bytes > MAX_DIRECTORY_BYTES) {
        throw new Error('it is no zip archive: its directory is out of bounds');
    }
    const directory = await readAt(file, start, bytes);
    const entries = [];
    for (let next = 0; entries.length < count;) {
        const entry = entryAt(directory, next);
        entry.start += prefix;
        next = entry.next;
        entries.push(entry);
    }
    return entries;
}

/**
 * Where the record is that ends an archive: the last thing in it but for a comment of the length
 * that it says.
 */
function endRecord(tail) {
    for (let at = tail.length - END.bytes; at >= 0; at--) {
        if (
            tail.readUInt32LE(at) === END.signature &&
            at + END.bytes + tail.readUInt16LE(at + 20) === tail.length
        ) {
            return at;
        }
    }
    throw new Error('it is no zip archive: it has no end record');
}

function entryAt(directory, at) {
    if (at + ENTRY.bytes > directory.length || directory.readUInt32LE(at) !== ENTRY.signature) {
        throw new Error('it is no zip archive: its directory is broken');
    }
    const nameBytes = directory.readUInt16LE(at + 28);
    const nameStart = at + ENTRY.bytes;
    const next =
        nameStart + nameBytes + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
    if (next > directory.length) {
        throw new Error('it is no zip archive: its directory is broken');
    }
    const mode = UNIX_MODES.includes(directory[at + 5]) ? directory.readUInt16LE(at + 40) : 0;
    return {
        name: directory.toString('utf8', nameStart, nameStart + nameBytes),
        isFileOrDirectory: MODE_FILE_OR_DIRECTORY.includes(mode & MODE_TYPE),
        isEncrypted: (directory.readUInt16LE(at + 8) & 1) === 1,
        method: directory.readUInt16LE(at + 10),
        checksum: directory.readUInt32LE(at + 16),
        compressedBytes: directory.readUInt32LE(at + 20),
        bytes: directory.readUInt32LE(at + 24),
        start: directory.readUInt32LE(at + 42),
        next,
    };
}

/** Where in the archive an entry's content stands, whose header says how long it is itself. */
export async function contentRange(file, archiveBytes, entry) {
    const name = JSON.stringify(entry.name);
    if (entry.isEncrypted || (entry.method !== STORED && entry.method !== DEFLATED)) {
        throw new Error(`${name} is neither stored nor deflated, or encrypted`);
    }
    const header = await readAt(file, entry.start, LOCAL.bytes);
    const start = entry.start + LOCAL.bytes + header.readUInt16LE(26) + header.readUInt16LE(28);
    const end = start + entry.compressedBytes;
    if (header.readUInt32LE(0) !== LOCAL.signature || end > archiveBytes) {
        throw new Error(`${name} is not where the archive's directory says`);
    }
    return { start, end };
}

/** Reads exactly so many bytes. */
async function readAt(file, start, bytes) {
    const buffer = Buffer.alloc(bytes);
    for (let done = 0; done < bytes;) {
        const { bytesRead } = await file.read(buffer, done, bytes - done, start + done);
        if (bytesRead === 0) {
            throw new Error('it is no zip archive: it is too short');
        }
        done += bytesRead;
    }
    return buffer;
}
