/** banner: the box that is made from the text is seen in a browser, whatever the sender's style sheet says of it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import banner from "../../handlers/banner.ts";
import { runFilter } from "../../src/testing/index.ts";
import { describeWith } from "../support/available.ts";
import { CHROMIUM, draw, type Picture } from "../support/browser.ts";

setDefaultTimeout(120_000);

/** Rules of a style sheet that hide a box, or what stands in it. */
const RULES: readonly string[] = [
  "clip-path:inset(100%)",
  "filter:opacity(0)",
  "zoom:0.01",
  "width:0;overflow:hidden;padding:0;border:0;white-space:nowrap",
  "margin-left:-9999px",
  "-webkit-text-fill-color:#fff4ce",
  "display:none",
  "visibility:hidden",
  "opacity:0",
  "mask-image:linear-gradient(transparent,transparent)",
  "translate:-9999px",
  "rotate:x 90deg",
  "scale:0",
  "transform:scale(0)",
  "offset-path:path('M-999 0 L-999 1');offset-distance:100%",
  "content-visibility:hidden",
  "contain:strict",
  "font:0/0 serif",
  "line-height:0;height:0;overflow:hidden",
  "letter-spacing:-99px",
  "word-spacing:-999px",
  "text-indent:-9999px",
  "max-width:0;overflow:hidden;padding:0",
  "max-height:0;overflow:hidden;padding:0",
  "position:absolute;left:-9999px",
  "position:fixed;top:-9999px",
  "position:relative;inset:-9999px auto auto -9999px",
  "float:left;width:1px;height:1px;overflow:hidden",
  "z-index:-1;position:relative",
  "animation:gone 1ms forwards",
  "transition:opacity 999s;opacity:0",
  "writing-mode:vertical-rl;width:1px;overflow:hidden",
  "-webkit-text-security:square",
  "background-image:linear-gradient(#1f1f1f,#1f1f1f)",
  "background-clip:text",
  "box-shadow:inset 0 0 0 99px #1f1f1f",
  "-webkit-text-stroke:20px #fff4ce",
  "text-shadow:0 0 0 #1f1f1f;color:transparent",
  "mix-blend-mode:lighten",
  "border:99px solid #fff;margin:-99px",
  "color:#fff4ce;background:#fff",
  "-webkit-line-clamp:0;display:-webkit-box;overflow:hidden",
  "columns:1px;height:1px",
  "shape-outside:circle();perspective:1px",
  "text-transform:full-size-kana;font-variant:small-caps;font-feature-settings:'smcp'",
];

/** Style sheets with these rules, some of which count for more than others. */
const STYLES: readonly string[] = [
  ...RULES.map((rule) => `div{${important(rule)}}`),
  `html body div[style]:not(#a#b#c):first-child{${important("filter:opacity(0)")}}`,
  `@layer first{div{${important("filter:opacity(0)")}}}`,
  "div::first-line{color:#fff4ce!important;font-size:0!important}",
  "div::first-letter{color:#fff4ce!important;font-size:99px!important}",
];

function important(rule: string): string {
  return rule.replaceAll(/;|$/g, "!important$&");
}

const TEXT = "CAUTION: this mail comes from outside of Example Ltd. Do not open links that you do not expect.";

async function withBanner(style: string): Promise<string> {
  const { message } = await runFilter(banner, {
    eml: `Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<html><head><style>@keyframes gone{to{opacity:0}}${style}</style></head><body><p style="color:#f00">Hello</p></body></html>\r\n`,
    options: { text: TEXT },
  });
  return message.slice(message.indexOf("\r\n\r\n") + 4);
}

/** Pixels of the box's ground and of its letters. */
function seenIn({ pixels }: Picture): { readonly ground: number; readonly letters: number } {
  let [ground, letters] = [0, 0];
  for (const colour of pixels) {
    if (colour === 0xfff4ce) ground += 1;
    else if ([16, 8, 0].every((shift) => ((colour >> shift) & 0xff) < 100)) letters += 1;
  }
  return { ground, letters };
}

describeWith(CHROMIUM, "the banner in a browser", () => {
  test("is seen, whatever a style sheet says of it", async () => {
    const [plain, ...pictures] = await draw(await Promise.all(["", ...STYLES].map(withBanner)));
    const whole = seenIn(plain!);
    expect(whole.ground).toBeGreaterThan(5000);
    expect(whole.letters).toBeGreaterThan(300);
    const hidden = STYLES.filter((_, index) => {
      const { ground, letters } = seenIn(pictures[index]!);
      return ground < 0.95 * whole.ground || letters < 0.95 * whole.letters || letters > 1.05 * whole.letters;
    });
    expect(hidden).toEqual([]);
  });
});
