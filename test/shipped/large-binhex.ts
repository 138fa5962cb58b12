/** Unpacks 50 MB of a BinHex file that repeats its bytes, and prints how much, and the memory that it took at most. */
import { filesInText } from "../../handlers/lib/archives/in-text.ts";

const DIGITS = "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";
const head = Buffer.from("\x01a\0TEXTttxt\0\0\x7f\xff\xff\xff\0\0\0\0\0\0", "latin1");
// Each three bytes stand for 255.
const packed = Buffer.concat([head, Buffer.alloc(600_001, "A\x90\xff", "latin1")]);
let text = "";
for (let at = 0; at < packed.length; at += 3) {
  const group = packed.readUIntBE(at, 3);
  for (const shift of [18, 12, 6, 0]) text += DIGITS[(group >> shift) & 63];
}
const [file] = filesInText(Buffer.from(`(This file must be converted with BinHex 4.0)\n\n:${text}:\n`));
const content = await file!.read(50_000_000);
console.log(JSON.stringify({ size: content!.length, mebibytes: process.resourceUsage().maxRSS / 1024 }));
