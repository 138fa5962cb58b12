/** What Ruby scripts print and raise: as mruby does, with lines of the Ruby source, and with the way out of what cannot be. */
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { CONSTANTS, IO_METHODS, METHODS, MUTATORS } from "../../src/ruby/unsupported.ts";
import { type Ran, runScripts } from "./run-scripts.ts";

setDefaultTimeout(120_000);

/** Runs all scripts of a table in one process; gives what became of each by its text. */
function ranOf(scripts: readonly string[], env: Record<string, string> = {}): (script: string) => Ran {
  let results: Ran[] = [];
  beforeAll(async () => {
    results = await runScripts(scripts, env);
  });
  return (script) => results[scripts.indexOf(script)]!;
}

describe("printing", () => {
  const CASES: readonly [script: string, printed: string][] = [
    ['puts "a", "b\\n", ""', "a\nb\n\n"],
    ["puts", "\n"],
    ["puts nil", "\n"],
    ['puts [1, ["a"]], []', '[1, ["a"]]\n[]\n'],
    ['print "a", 1, nil, "\\n"', "a1\n"],
    ['p "a", nil, 1', '"a"\nnil\n1\n'],
    ["p", ""],
    ["x = p 5; puts x", "5\n5\n"],
    ['printf("%03d|%-5s|%x\\n", 7, "ab", 255)', "007|ab   |ff\n"],
    ['$stdout.puts "a"', "a\n"],
    ['puts "#{nil}|#{true}|#{[1, nil]}|#{1.5}"', "|true|[1, nil]|1.5\n"],
    ['puts({"From" => "<from@example.com>"})', '{"From"=>"<from@example.com>"}\n'],
    ['puts "#{{"a" => {"b" => [1]}}}"', '{"a"=>{"b"=>[1]}}\n'],
    ["p({})", "{}\n"],
    ['p "q\\"b\\\\n\\nt\\te\\e\\a"', '"q\\"b\\\\n\\nt\\te\\e\\a"\n'],
    ['p "\\#{a} \\#@a \\#$a # #1"', '"\\#{a} \\#@a \\#$a # #1"\n'],
    ['p "\u00fc\u20ac"', '"\\303\\274\\342\\202\\254"\n'],
    ["p 10 / 4, 7 % 3, 2 ** 10", "2.5\n1\n1024\n"],
    ['puts "#{Time.at 1478113335}"', "Thu Nov 03 04:02:15 2016\n"],
    ["puts Time.at(1478113335).utc", "Wed Nov 02 19:02:15 UTC 2016\n"],
    ["puts Time.at(0).utc.localtime, Time.at(0).utc.getlocal", "Thu Jan 01 09:00:00 1970\n".repeat(2)],
    ["puts Time.at(1.25).nsec, Time.new.localtime.to_i > 1", "250000000\ntrue\n"],
    ["p Time.at(0)", "Thu Jan 01 09:00:00 1970\n"],
    ['class Rule; def to_s; "rule"; end; end; puts "#{Rule.new}"', "rule\n"],
    ["puts 1\nreturn if true\nputs 2", "1\n"],
    ["puts <<TEXT\na #{1 + 1}\nTEXT", "a 2\n"],
    ['def twice(a); a * 2; end; puts twice("x")', "xx\n"],
    ["puts __LINE__", "1\n"],
    ["\ufeffputs 1\r\n# c\r\nif true\r\n  puts 2\r\nend\r\n", "1\n2\n"],
    ["#!/usr/bin/env ruby\n=begin\nx\n=end\nputs 1\n__END__\nputs (", "1\n"],
    ["# \u{1f600} \u{1f601}\nx = 'a\u{1f600}\ue000'; puts x, x.length # \u{1f600}\nputs 2", "a\u{1f600}\ue000\n4\n2\n"],
  ];
  const of = ranOf(
    CASES.map(([script]) => script),
    { TZ: "Asia/Tokyo" },
  );

  test.each(CASES)("%j", (script, printed) => {
    expect(of(script)).toEqual({ printed, error: null, lines: [] });
  });
});

describe("errors have the class, the message and the lines of Ruby", () => {
  const CASES: readonly [script: string, error: string, lines: number[]][] = [
    ['\n\nraise "no"', "RuntimeError: no", [3]],
    ["raise ArgumentError", "ArgumentError: ArgumentError", [1]],
    ["class Mine < StandardError; end\nraise Mine, 'a'", "Mine: a", [2]],
    ["nil.foo", "NoMethodError: undefined method `foo' for nil", [1]],
    ["x = 1\np Nowhere", "NameError: uninitialized constant Nowhere", [2]],
    ["def f(a)\n  a\nend\n\nf", "ArgumentError: [Object#f] wrong number of arguments (given 0, expected 1)", [1, 5]],
    [
      "def deep(n)\n  [n].each do |m|\n    raise 'x' if m == 0\n    deep(m - 1)\n  end\nend\ndeep(1)",
      "RuntimeError: x",
      [3, 2, 4, 2, 7],
    ],
    ["begin\n  raise 'a'\nrescue => e\n  raise e\nend", "RuntimeError: a", [2]],
    ["throw :x", 'UncaughtThrowError: uncaught throw "x"', [1]],
  ];
  const of = ranOf(CASES.map(([script]) => script));

  test.each(CASES)("%j: %s", (script, error, lines) => {
    expect(of(script)).toEqual({ printed: "", error, lines });
  });
});

describe("what a client sends is taken for no frame", () => {
  const script = '\n\nraise "a\\n    at #{__FILE__}:99:1\\n  from #{__FILE__}:98:1:in `x\'"';
  const of = ranOf([script]);

  test("in an exception's message", () => {
    expect(of(script).lines[0]).toBe(3);
  });
});

describe("syntax errors have a line", () => {
  const CASES: readonly [script: string, error: string][] = [
    ["puts 1\nif", "LoadError: FILE:2: unexpected token $end"],
    ['puts 1\n\nputs "a', "LoadError: FILE:3: unterminated string meets end of file"],
    ["a = 1\n)\n", "LoadError: FILE:2: unexpected token tRPAREN"],
  ];
  const of = ranOf(CASES.map(([script]) => script));

  test.each(CASES)("%j", (script, error) => {
    expect(of(script).error).toBe(error);
  });
});

describe("what cannot run", () => {
  const page = Bun.file(new URL("../../docs/from-the-original.md", import.meta.url)).text();
  const REFUSED = [
    ...Object.entries(METHODS).map(([name, way]) => [`\n  ${name} "a"`, name, way] as const),
    ...Object.entries(CONSTANTS).map(([name, way]) => [`\n  ${name}.new`, name, way] as const),
    ["\n  Kernel.sleep 1", "sleep", METHODS["sleep"]!],
    ["\n  ::Redis.new", "Redis", CONSTANTS["Redis"]!],
    ...Object.entries(IO_METHODS).map(([name, way]) => [`\n  IO.${name} "a"`, `IO.${name}`, way] as const),
    ["\n  `date`", "a command in backticks", METHODS["system"]!],
    ["\n  %x(date)", "a command in backticks", METHODS["system"]!],
  ] as const;
  const CHANGED = Object.entries(MUTATORS).map(([name, way]) => {
    const call = name === "[]=" ? "s[0] = 'x'" : name === "<<" ? "s << 'x'" : `s.${name}`;
    return [`s = "a"\n${call}`, name, way] as const;
  });
  const ALLOWED = [
    "def sleep(n); n; end\nsleep 1",
    "class Fiber; def name; 'own'; end; end\nputs Fiber.new.name",
    "def sleep(n); n; end\nsleep 1 if Mutex.nil?",
    "puts defined?(Redis) ? 'there' : 'not there'",
    "a = [1]\na << 2\na.concat([3])\na.delete(1)\na.clear",
    "h = {}\nh['a'] = 1\nh.clear",
    "puts 'a'.upcase + 'b'.sub('b', 'c')",
  ];
  const FAILING: readonly string[] = [...REFUSED, ...CHANGED].map(([script]) => script);
  const of = ranOf([...FAILING, ...ALLOWED]);

  test.each(REFUSED)("%j is refused when it is loaded", async (script, name, way) => {
    expect(of(script).error).toBe(
      `LoadError: FILE:2:3: ${name} cannot be used in a Ruby handler here: ${way} (docs/from-the-original.md)`,
    );
    expect(await page).toContain(name === "a command in backticks" ? "backticks" : `\`${name}\``);
  });

  test.each(CHANGED)("%j is an error when it runs", async (script, name, way) => {
    const { error, lines } = of(script);
    expect(error).toStartWith(`NotImplementedError: String#${name} would change a string in place, `);
    expect(error).toContain(`: ${way}; `);
    expect(lines[0]).toBe(2);
    expect(await page).toContain(`\`${name}\``);
  });

  test.each(ALLOWED)("%j runs", (script) => {
    expect(of(script).error).toBeNull();
  });
});
