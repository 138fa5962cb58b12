/** Which name servers a machine uses. */
import { expect, test } from "bun:test";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseServer } from "../../../src/dns/servers.ts";
import { readResolvConf, SystemServers } from "../../../src/services/dns/resolv-conf.ts";
import { tempDir } from "../../support/temp.ts";

test.each([
  ["127.0.0.1", "127.0.0.1", 53],
  ["127.0.0.1:5353", "127.0.0.1", 5353],
  ["[::1]:5353", "::1", 5353],
  ["[::1]", "::1", 53],
  ["::1", "::1", 53],
])("%s is a server", (text, address, port) => {
  expect(parseServer(text)).toEqual({ address, port });
});

test.each(["", "localhost", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[127.0.0.1]:53", "::1:5353x", "1.2.3"])(
  "%p is none",
  (text) => {
    expect(parseServer(text)).toBeNull();
  },
);

test("three of a file are asked; without any the own machine is", () => {
  const lines = [
    "# nameserver 192.0.2.9",
    "search example.org",
    "nameserver 192.0.2.1",
    "nameserver\t2001:db8::1",
    "nameserver fe80::1%eth0",
    "nameserver 192.0.2.4",
  ];
  expect(readResolvConf(lines.join("\n")).servers.map(({ address }) => address)).toEqual([
    "192.0.2.1",
    "2001:db8::1",
    "fe80::1%eth0",
  ]);
  for (const text of ["", "options rotate\nnameserver here\n", " nameserver 192.0.2.1", "nameservers 192.0.2.1"]) {
    expect(readResolvConf(text).servers).toEqual([{ address: "127.0.0.1", port: 53 }]);
  }
});

test("comments and ends of lines of other systems do not matter", () => {
  const { servers } = readResolvConf(
    "; nameserver 192.0.2.8\r\nnameserver 192.0.2.1\r\nnameserver 192.0.2.2 # the second\nnameserver ::1 ; third",
  );
  expect(servers.map(({ address }) => address)).toEqual(["192.0.2.1", "192.0.2.2", "::1"]);
});

test.each([
  ["options rotate", true],
  ["options timeout:1 rotate ndots:2", true],
  ["options ndots:2\toptions", false],
  ["options norotate", false],
  ["# options rotate", false],
  ["", false],
])("%p: each question begins with another server: %p", (text, rotates) => {
  expect(readResolvConf(`nameserver 192.0.2.1\n${text}\n`).rotates).toBe(rotates);
});

test("a file that changes is read again, also one that is replaced; one that is gone changes nothing", async () => {
  await using dir = await tempDir("resolv");
  const file = join(dir.path, "resolv.conf");
  let now = 0;
  let changes = 0;
  const servers = new SystemServers(
    file,
    () => (changes += 1),
    () => now,
  );
  const asked = () => {
    now += 1000;
    return servers.settings.servers.map(({ address }) => address);
  };
  expect(asked()).toEqual(["127.0.0.1"]);
  writeFileSync(file, "nameserver 192.0.2.1\n");
  expect(asked()).toEqual(["192.0.2.1"]);
  expect(changes).toBe(0);
  writeFileSync(`${file}.new`, "nameserver 192.0.2.2\n");
  renameSync(`${file}.new`, file);
  expect(asked()).toEqual(["192.0.2.2"]);
  expect(changes).toBe(1);
  renameSync(file, `${file}.old`);
  expect(asked()).toEqual(["192.0.2.2"]);
  expect(changes).toBe(1);
});
