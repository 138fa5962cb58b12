/** Reads a message of 100 MB of base64 in one line, and prints the size of the part and the peak memory in MiB. */
import { readMessage } from "../../src/index.ts";

const [digits = ""] = process.argv.slice(2);
const head = Buffer.from("Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n");
const eml = Buffer.alloc(head.length + 100_000_000, digits);
head.copy(eml);
eml.write(digits, head.length);
const { size } = readMessage(eml).root;
// ru_maxrss is in KiB on Linux, and Bun gives it as such on every system.
console.log(JSON.stringify({ size, mebibytes: Math.round(process.resourceUsage().maxRSS / 1024) }));
