/** Pages as a browser shows them: Chromium draws all of them in one picture, each in a frame of its own. */
import { join } from "node:path";
import { inflateSync } from "node:zlib";
import { outsideTool } from "./available.ts";
import { tempDir } from "./temp.ts";

export const CHROMIUM = outsideTool("chromium", { paths: ["/usr/bin/chromium", "/usr/bin/chromium-browser"] });

/** Width and height of a frame. */
export const FRAME = { width: 400, height: 120 } as const;
const COLUMNS = 3;

/** Colours of pixels as numbers such as 0xffffff, line by line. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint32Array;
}

/** Draws HTML documents, each as if it were a page by itself. In a sandbox each would get a process, and pictures would lack some. */
export async function draw(documents: readonly string[]): Promise<Picture[]> {
  await using dir = await tempDir("browser");
  const { height, width } = FRAME;
  const frames = documents.map((html, index) => {
    const [left, top] = [(index % COLUMNS) * width, Math.floor(index / COLUMNS) * height];
    const source = html.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
    return `<iframe srcdoc="${source}" style="position:absolute;border:0;left:${left}px;top:${top}px;width:${width}px;height:${height}px"></iframe>`;
  });
  const page = join(dir.path, "page.html");
  const file = join(dir.path, "page.png");
  await Bun.write(page, `<!doctype html><meta charset="utf-8"><body style="margin:0">${frames.join("\n")}`);
  const all = { width: COLUMNS * width, height: Math.ceil(documents.length / COLUMNS) * height };
  const browser = Bun.spawn(
    [
      CHROMIUM.path,
      "--headless",
      // It runs as root, which the sandbox refuses, and on files of our own.
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--hide-scrollbars",
      // Until all frames are drawn.
      "--run-all-compositor-stages-before-draw",
      "--virtual-time-budget=2000",
      "--force-device-scale-factor=1",
      `--user-data-dir=${join(dir.path, "profile")}`,
      `--window-size=${all.width},${all.height}`,
      `--screenshot=${file}`,
      `file://${page}`,
    ],
    { stdout: "ignore", stderr: "pipe", env: { ...process.env, HOME: dir.path } },
  );
  const errors = await new Response(browser.stderr).text();
  if ((await browser.exited) !== 0) throw new Error(`chromium: ${errors}`);
  const whole = readPng(await Bun.file(file).bytes());
  return documents.map((_, index) => cut(whole, (index % COLUMNS) * width, Math.floor(index / COLUMNS) * height));
}

function cut(whole: Picture, left: number, top: number): Picture {
  const { height, width } = FRAME;
  const pixels = new Uint32Array(width * height);
  for (let y = 0; y < height; y++) {
    const from = (top + y) * whole.width + left;
    pixels.set(whole.pixels.subarray(from, from + width), y * width);
  }
  return { width, height, pixels };
}

/** PNG of 8 bits a channel, RGB or RGBA, not interlaced, as Chromium writes it (RFC 2083). */
function readPng(bytes: Uint8Array): Picture {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height, colour] = [view.getUint32(16), view.getUint32(20), view.getUint8(25)];
  if (view.getUint8(24) !== 8 || (colour !== 2 && colour !== 6)) throw new Error("a PNG of another kind");
  const size = colour === 2 ? 3 : 4;
  const chunks: Uint8Array[] = [];
  for (let at = 8; at < bytes.length; at += view.getUint32(at) + 12) {
    if (view.getUint32(at + 4) === 0x49444154) chunks.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  const data = inflateSync(Buffer.concat(chunks));
  const line = width * size;
  const pixels = new Uint32Array(width * height);
  let above = new Uint8Array(line);
  for (let y = 0; y < height; y++) {
    const kind = data[y * (line + 1)]!;
    const row = Uint8Array.from(data.subarray(y * (line + 1) + 1, (y + 1) * (line + 1)));
    for (let x = 0; x < line; x++) {
      const [left, up, corner] = [row[x - size] ?? 0, above[x]!, above[x - size] ?? 0];
      row[x] = row[x]! + [0, left, up, (left + up) >> 1, paeth(left, up, corner)][kind]!;
    }
    for (let x = 0; x < width; x++) {
      pixels[y * width + x] = (row[x * size]! << 16) | (row[x * size + 1]! << 8) | row[x * size + 2]!;
    }
    above = row;
  }
  return { width, height, pixels };
}

function paeth(left: number, up: number, corner: number): number {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
