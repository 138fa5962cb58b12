/** Libraries for charsets and encoded words. Each is loaded at its first use: their tables take a tenth of a second. */

type Iconv = typeof import("iconv-lite");
type Libmime = typeof import("libmime").default;
type Decoder = typeof import("libmime/lib/charset.js");

let loadedIconv: Iconv | null = null;
let loadedLibmime: Libmime | null = null;
let loadedDecoder: Decoder | null = null;

/** The charsets that are known. */
export function iconv(): Iconv {
  return (loadedIconv ??= require("iconv-lite") as Iconv);
}

/** Encoded words, and the names of charsets. */
export function libmime(): Libmime {
  return (loadedLibmime ??= (require("libmime") as { default: Libmime }).default);
}

/** The part of `libmime` that decodes bytes. */
export function decoder(): Decoder {
  return (loadedDecoder ??= require("libmime/lib/charset.js") as Decoder);
}

/**
 * Codecs of `iconv-lite` that no mail is written in, UTF-7 among them: no mail program reads them any more, and `libmime` does
 * not use them either.
 */
export const NO_CHARSETS = /^(?:utf-?7.*|unicode-?1-?1-?utf-?7|base64|hex)$/i;
