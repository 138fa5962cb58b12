/** Where a sample of `perf script` belongs. */
import { expect, test } from "bun:test";
import { countSamples } from "../../bench/profile/samples.ts";

const RUNTIME = "         2fa94dd [unknown] (/opt/bun)";
const SCRIPT = [
  [
    "Worker  58 20193.984: 500000 cpu-clock: ",
    "ffffffff815ca905 kmalloc+0x5 ([kernel.kallsyms])",
    "ffffffff81e314b0 __x64_sys_sendto+0x20 ([kernel.kallsyms])",
    "          10aba4 __send+0x64 (/usr/lib/libc.so.6)",
  ],
  [
    "Worker  58 20193.985: 500000 cpu-clock: ",
    "ffffffff815ca905 finish_task_switch.isra.0+0x5 ([kernel.kallsyms])",
    "ffffffff815ca906 exit_to_user_mode_loop+0x5 ([kernel.kallsyms])",
    "          10aba4 __send+0x64 (/usr/lib/libc.so.6)",
  ],
  [
    "bun.exe  57 20193.986: 500000 cpu-clock: ",
    "ffffffff81e31750 __x64_sys_accept4+0x20 ([kernel.kallsyms])",
    "          10a974 accept4+0x64 (/usr/lib/libc.so.6)",
  ],
  ["Worker  58 20193.987: 500000 cpu-clock: ", "    7fdad57e98b8 [unknown] (/tmp/perf-5855.map)", RUNTIME],
  ["Worker  58 20193.988: 500000 cpu-clock: ", RUNTIME, "    7fdad57e98b8 [unknown] (/tmp/perf-5855.map)"],
  ["Worker  58 20193.989: 500000 cpu-clock: ", "          891f5 memmove+0x305 (/usr/lib/x86_64-linux-gnu/libc.so.6)"],
  ["JITWorker  60 20193.990: 500000 cpu-clock: ", RUNTIME],
]
  .map((lines) => [lines[0], ...lines.slice(1).map((line) => `\t${line}`)].join("\n"))
  .join("\n\n");

test("countSamples: by the call of the system, else by what the innermost frame belongs to", () => {
  expect(countSamples(`${SCRIPT}\n\n`)).toEqual({
    "send: replies to the mail server": 1,
    receive: 0,
    "wait for what is ready (epoll)": 0,
    "another process has the core after a call": 1,
    "other calls of the system": 1,
    "JavaScript, compiled": 1,
    "runtime: Bun, JavaScriptCore": 1,
    "C library": 1,
    "threads that help: compilers, collector": 1,
  });
});
