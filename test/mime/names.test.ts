/** Names of files: what most mail programs show, and what some might. */
import { describe, expect, test } from "bun:test";
import { structureOfMessage } from "../../src/mime/structure.ts";

function read(header: string): { readonly names: readonly string[]; readonly flaws: readonly string[] } {
  const { root, flaws } = structureOfMessage(Buffer.from(`Content-Type: text/plain\r\n${header}\r\n\r\n`, "latin1"));
  return { names: root.names, flaws };
}

const disposition = (parameters: string): string => `Content-Disposition: attachment; ${parameters}`;

describe("the name that most mail programs show", () => {
  test.each([
    ["filename=a.pdf", "a.pdf"],
    ['filename="a b;c.pdf"', "a b;c.pdf"],
    ['filename="a \\"b\\".pdf"', 'a "b".pdf'],
    ["filename=x.js(c)", "x.js"],
    ["FileName = a.pdf", "a.pdf"],
    ["filename=a.pdf; name=b.pdf", "a.pdf"],
    ["filename*=utf-8''%e2%82%ac%20x.pdf", "€ x.pdf"],
    ["filename=b.pdf; filename*=iso-8859-1'en'%a3.pdf", "£.pdf"],
    ["filename*=windows-1252''%80.pdf", "€.pdf"],
    ["filename*0=a; filename*1=b.pdf", "ab.pdf"],
    ["filename*1=b.pdf; filename*0=a", "ab.pdf"],
    ["filename*0=x.js; filename*=utf-8''a.pdf", "a.pdf"],
    ['filename*00001=s; filename*00000="x.j"', "x.js"],
    ["filename*0*=utf-8''%e2%82; filename*1*=%ac; filename*2=.pdf", "€.pdf"],
    ['filename="=?utf-8?q?=E2=82=AC?=.pdf"', "€.pdf"],
    ["filename==?utf-8?b?4oKs?=", "€"],
    ['filename="\xe2\x82\xac.pdf"', "€.pdf"],
    ['filename="\xa3.pdf"', "£.pdf"],
    ['filename="a\r\n b.pdf"', "a b.pdf"],
  ])("%j", (parameters, name) => {
    expect(read(disposition(parameters)).names[0]).toBe(name);
  });

  test.each([
    ["Content-Type: text/plain; name=a.pdf", "a.pdf"],
    ["Content-Location: http://example.org/d/a.pdf?x#y", "a.pdf"],
  ])("%j", (header, name) => {
    const { root } = structureOfMessage(Buffer.from(`${header}\r\n\r\n`));
    expect(root.names).toEqual([name]);
  });

  test.each(["x-username=x.js", "x-name=x.js", "rename=x.js", "creation-date=x", 'x="y; z"'])("%j is none", (text) => {
    expect(read(disposition(text)).names).toEqual([]);
  });

  test.each(["filename=a.pdf", 'filename="a b.pdf"', "filename=a.pdf; size=5"])("%j: no other name", (text) => {
    expect(read(disposition(text)).names).toEqual([/a(?: b)?\.pdf/.exec(text)![0]]);
  });
});

describe("names that some mail programs might show", () => {
  test.each([
    ["filename=x.js(c).txt", ["x.js", "x.js(c).txt"]],
    ['filename="=?nonsense?Q?x=2Ejs?="', ["x.js"]],
    ['filename="=??B?eC5qcw==?="', ["x.js"]],
    ['filename="=?utf-7?Q?x+AC4-js?="', ["x.js"]],
    ["filename*=utf-7''x%2BAC4-js", ["x.js"]],
    ["filename=a.txt; filename=x.js", ["a.txt", "x.js"]],
    ["filename=a.txt; name=x.js", ["x.js"]],
    ["filename=a.txt; filename*=utf-8''x.js", ["a.txt", "x.js"]],
    ['filename="x.js', ["x.js"]],
    ['filename="x.js;y.txt', ["x.js"]],
    ['filename="a.txt"x.js', ["a.txtx.js"]],
    ['filename="x.js\\"y.txt"', ["x.js\\"]],
    ['filename="c:\\x.js"', ["c:\\x.js", "c:x.js"]],
    ["filename=my x.js", ["my x.js", "my"]],
    ['filename="x.j\r\n s"', ["x.js", "x.j s"]],
    ['filename="x.js\0.txt"', ["x.js", "x.js.txt"]],
    ['filename="=?utf-8?q?x.js=00.txt?="', ["x.js", "x.js.txt"]],
    ['filename="=?utf-8?q?x.?==?utf-8?q?js?="', ["x.js"]],
    ['filename="=?utf-8?q?x. js?="', ["x. js", "x.js"]],
    ['filename="x%2ejs"', ["x%2ejs", "x.js"]],
    ["filename*0=x.; filename*2=js", ["x.js"]],
    ["filename*0*=x%2e; filename*1*=js", ["x.js"]],
    ["filename*=x%2ejs", ["x.js"]],
    ["filename*=utf-7''x+AC4-js", ["x.js"]],
    ['filename="=?utf-7?q?x+AC4-js?="', ["x.js"]],
    ['filename="=?no-such?q?x=2Ejs?="', ["x.js"]],
    ['filename="=??b?eC5qcw==?="', ["x.js"]],
  ])("%j", (parameters, names) => {
    expect(read(disposition(parameters)).names).toEqual(expect.arrayContaining(names));
  });

  test.each(["Content-Disposition: attachment filename=x.js", "Content-Disposition: attachment, filename=x.js"])(
    "%j",
    (header) => expect(read(header).names).toContain("x.js"),
  );

  test("behind a comment that never ends are read", () => {
    const comment = `a=(${"\\(".repeat(25_000)}`;
    expect(read(disposition(`${comment}; filename*0="x."; filename*1=js`)).names[0]).toBe("x.js");
  });

  test("behind too many parameters are a flaw", () => {
    expect(read(disposition(`${";".repeat(250)} filename*0="x."; filename*1=js`)).flaws).toEqual([
      "too many parameters",
    ]);
    expect(read(disposition(`${"a=b; ".repeat(198)} filename=x`)).flaws).toEqual([]);
  });

  const ODD = ["a file name that mail programs read differently"];

  test.each([
    "filename*1=a; filename*2=b",
    "filename*0=a; filename*2=b",
    "filename*0=a; filename*0=b; filename*1=c",
    "filename*0=a; filename*1=b; filename*1*=c",
    "filename*0=a; filename*+1=b",
    "filename*0=a; filename*-1=b",
    "filename*0=a; filename*01=b",
    "filename*0=a; filename*0x1=b",
    "filename*0=a; filename* 1=b",
    "filename*0=a; filename*1**=b",
    "filename*0=a; filename*=utf-8''b; filename*1=c",
    "filename*0=cp500''; filename*1*=%A7%4B%91%A2",
    "filename*=cp500''%A7%4B%91%A2",
    "filename*=utf-16''%FE%FF%00x",
    "filename*0*=hz-gb-2312''x; filename*1*=y",
    'filename="=?cp1047?B?p0uRog==?="',
    'filename="=?utf-8?Q?a?= =?utf-32be*en?B?AAAAeA==?="',
    "filename*=utf-7''x+AC4-js",
  ])("%j is a flaw", (parameters) => {
    expect(read(disposition(parameters)).flaws).toEqual(ODD);
    expect(read(`Content-Type: text/x; ${parameters.replaceAll("filename", "name")}`).flaws).toContain(ODD[0]!);
  });

  test.each([
    "filename*0=a; filename*1=b; filename*2*=c",
    "filename*1=b; filename*0=a",
    "filename*0*=utf-8''a; filename*1*=b; filename=c",
    "filename*=iso-8859-15'en'%a3",
    "filename*=''a",
    "filename*=windows-1252''%80",
    'filename="=?iso-2022-jp?B?eC5qcw==?="',
    'filename="=?ks_c_5601-1987?B?eC5qcw==?="',
    'filename="=?unknown-8bit?Q?=E4?="',
    'filename="=?Shift_JIS?B?eC5qcw==?="',
    `filename*0="rock'n'roll"; filename*1=b`,
    Array.from({ length: 120 }, (_, n) => `filename*${n}=a`).join("; "),
  ])("%j is none", (parameters) => {
    expect(read(disposition(parameters)).flaws).toEqual([]);
  });

  test("are bounded, and beyond that a flaw", () => {
    const many = Array.from({ length: 150 }, (_, n) => `filename=${n}.txt`).join("; ");
    expect(read(disposition(many))).toMatchObject({ flaws: ["too many file names"] });
    expect(read(disposition(many)).names.length).toBe(64);
    const long = read(disposition(`filename="${"a".repeat(100_000)}x.js"`));
    expect(long.flaws).toEqual(["a file name that is too long"]);
    expect(long.names[0]!.endsWith("x.js") && long.names[0]!.length === 1000).toBe(true);
  });
});
