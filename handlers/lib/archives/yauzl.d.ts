/** The part of yauzl 3 that is used here; its own package has no types. */
declare module "yauzl" {
  /** A file as the directory lists it. */
  interface Entry {
    readonly generalPurposeBitFlag: number;
    readonly compressionMethod: number;
    readonly compressedSize: number;
    readonly crc32: number;
    readonly relativeOffsetOfLocalHeader: number;
    readonly fileNameRaw: Buffer;
    readonly extraFieldRaw: Buffer;
  }

  interface ZipFile {
    /** Where the next record of the directory is. */
    readonly readEntryCursor: number;
    eachEntry(): AsyncIterableIterator<Entry>;
  }

  interface Options {
    readonly decodeStrings: boolean;
    readonly validateEntrySizes: boolean;
  }

  export function fromBufferPromise(buffer: Buffer, options: Options): Promise<ZipFile>;
}
