/** The judges: each finds the parts of a message, with their names and decoded contents. */
import { expect, test } from "bun:test";
import { describeWith } from "./available.ts";
import {
  hashOf,
  type JudgeSource,
  type Leaf,
  MAILPARSER,
  MAILSPLIT,
  PERL,
  POSTAL_MIME,
  PYTHON,
  RIPMIME,
} from "./judges.ts";

const MAIL = `From: alice@example.com
Subject: two files
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Gr=C3=BC=C3=9Fe
--outer
Content-Type: application/octet-stream; name="a.bin"
Content-Transfer-Encoding: base64

AAEC/w==
--outer
Content-Type: message/rfc822
Content-Disposition: attachment

Subject: inner
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=inner

--inner
Content-Type: application/zip
Content-Disposition: attachment; filename*=utf-8''b%C3%A4.zip
Content-Transfer-Encoding: base64

UEsDBA==
--inner--
--outer--
`;

const A = { name: "a.bin", size: 4, hash: hashOf(new Uint8Array([0, 1, 2, 255])) };
const B = { size: 4, hash: hashOf("PK\x03\x04") };

function find(leaves: readonly Leaf[], hash: string): Partial<Leaf> | undefined {
  return leaves.find((leaf) => leaf.hash === hash);
}

/** Whether it gives all leaves, or attachments only. */
const SOURCES: readonly (readonly [JudgeSource, "all" | "attachments" | "files"])[] = [
  [MAILSPLIT, "all"],
  [POSTAL_MIME, "attachments"],
  [MAILPARSER, "attachments"],
  [PYTHON, "all"],
  [PERL, "all"],
  [RIPMIME, "files"],
];

for (const [source, kind] of SOURCES) {
  describeWith(source.tool, source.tool.name, () => {
    test("gives the parts, and those of a forwarded message", async () => {
      await using judge = source.open();
      for (const mail of [MAIL, MAIL.replaceAll("\n", "\r\n")]) {
        const leaves = await judge.leaves(Buffer.from(mail));
        expect(find(leaves, A.hash)).toMatchObject(A);
        expect(find(leaves, B.hash)).toMatchObject(B);
        expect(leaves.filter((leaf) => leaf.isBroken)).toEqual([]);
        if (kind !== "files") {
          expect(find(leaves, A.hash)!.type).toBe("application/octet-stream");
          expect(find(leaves, B.hash)).toMatchObject({ type: "application/zip", name: "bä.zip" });
        }
        if (kind === "all") {
          expect(leaves.map(({ type }) => type)).toEqual(["text/plain", "application/octet-stream", "application/zip"]);
        }
      }
    });
  });
}
