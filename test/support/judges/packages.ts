/**
 * The judges that are npm packages. `mailsplit` gives all leaves; `postal-mime` and `mailparser` join texts to one, so
 * they give only what they take for attachments. They open some forwarded messages and give others as files; here all
 * are opened, by the same judge.
 */
import { once } from "node:events";
import { Splitter } from "@zone-eu/mailsplit";
import type { MimeNode } from "@zone-eu/mailsplit";
import { simpleParser } from "mailparser";
import PostalMime from "postal-mime";
import { hashOf, type Judge, type JudgeSource, type Leaf } from "./judge.ts";

function source(name: string, leaves: Judge["leaves"]): JudgeSource {
  const tool = { name, available: true, path: name, reason: "a dependency" };
  return { tool, open: () => ({ name, leaves, [Symbol.asyncDispose]: () => Promise.resolve() }) };
}

/** @zone-eu/mailsplit: header and content of each part as they stand in the message. */
export const MAILSPLIT = source("mailsplit", mailsplitLeaves);

async function mailsplitLeaves(mail: Uint8Array): Promise<readonly Leaf[]> {
  const nodes: { readonly node: MimeNode; readonly body: Buffer[] }[] = [];
  const splitter = new Splitter({ ignoreEmbedded: true });
  splitter.on("data", (chunk) => {
    if (chunk.type === "node") nodes.push({ node: chunk, body: [] });
    else if (chunk.type === "body") nodes.at(-1)!.body.push(Buffer.from(chunk.value));
  });
  splitter.end(mail);
  await once(splitter, "end");
  const leaves: Leaf[] = [];
  for (const { node, body } of nodes) {
    if (node.multipart !== false) continue;
    const content = await decode(node, Buffer.concat(body));
    if (isMessage(node.contentType || "")) leaves.push(...(await mailsplitLeaves(content)));
    else leaves.push(mailsplitLeaf(node, Buffer.concat(body), content));
  }
  return leaves;
}

function mailsplitLeaf(node: MimeNode, body: Buffer, content: Buffer): Leaf {
  return {
    type: node.contentType || "text/plain",
    name: node.filename || "",
    hash: hashOf(content),
    size: content.length,
    raw: hashOf(Buffer.concat([node.getHeaders(), body])),
    fields: node.headers === false ? [] : node.headers.getList().map(({ key }) => key),
    isBroken: false,
  };
}

async function decode(node: MimeNode, body: Buffer): Promise<Buffer> {
  const decoder = node.getDecoder();
  const chunks: Buffer[] = [];
  decoder.on("data", (chunk: Buffer) => chunks.push(chunk));
  decoder.end(body);
  await once(decoder, "end");
  return Buffer.concat(chunks);
}

/** postal-mime: attachments only. */
export const POSTAL_MIME = source("postal-mime", async function leaves(mail): Promise<readonly Leaf[]> {
  const { attachments } = await PostalMime.parse(mail, { attachmentEncoding: "arraybuffer" });
  const all = attachments.map(({ mimeType, filename, content }) => {
    const bytes = new Uint8Array(content as ArrayBuffer);
    return isMessage(mimeType) ? leaves(bytes) : [attachment(mimeType, filename ?? "", bytes)];
  });
  return (await Promise.all(all)).flat();
});

/** mailparser: attachments only. */
export const MAILPARSER = source("mailparser", async function leaves(mail): Promise<readonly Leaf[]> {
  const { attachments } = await simpleParser(Buffer.from(mail), { skipTextToHtml: true, skipTextLinks: true });
  const all = attachments.map(({ contentType, filename, content }) =>
    isMessage(contentType) ? leaves(content) : [attachment(contentType, filename ?? "", content)],
  );
  return (await Promise.all(all)).flat();
});

function isMessage(type: string): boolean {
  return type === "message/rfc822" || type === "message/global";
}

function attachment(type: string, name: string, content: Uint8Array): Leaf {
  return { type, name, hash: hashOf(content), size: content.length, raw: "", fields: [], isBroken: false };
}
