/** The flaws of a message, in words: what of it mail programs may read differently, so that they see other parts. */
export const FLAWS = [
  "a line that is almost a boundary",
  "a boundary behind a carriage return",
  "a boundary that is too long",
  "a boundary that mail programs read differently",
  "a Content-Transfer-Encoding that is not known",
  "a Content-Type that is none",
  "a file name that is too long",
  "a header that is too long",
  "a header that says twice what a part is",
  "a header with a carriage return within a line",
  "a header with a line of white space",
  "a header with a line that is no field",
  "a header with a NUL",
  "a message that begins with an empty line",
  "a multipart that does not end",
  "a multipart that ends before it begins",
  "a multipart that is encoded",
  "a multipart with parts behind its end",
  "a multipart without a boundary",
  "a multipart without parts",
  "base64 with padding before its end",
  "parts that are nested too deep",
  "too many file names",
  "too many parts",
] as const;

export type Flaw = (typeof FLAWS)[number];
