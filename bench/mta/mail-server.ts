/** A private Postfix with two ports: mail passes without a filter, or with a filter that can be exchanged. */
import { chmod, readdir, rm, statfs, symlink } from "node:fs/promises";
import { join } from "node:path";
import { type Postfix, startPostfix } from "../../test/support/postfix.ts";
import { tempDir, waitFor } from "../../test/support/temp.ts";

/** Where a Postfix has its queue. */
export interface Place {
  readonly name: string;
  /** The folder to make it below; null for the system's temporary folder. */
  readonly below: string | null;
}

export const DISK: Place = { name: "disk", below: null };

/** Room for the messages that are under way. */
const QUEUE_BYTES = 256 * 2 ** 20;
const TMPFS_MAGIC = 0x0102_1994;

/** A queue in memory, or why there cannot be one. */
export async function memoryPlace(folder = "/dev/shm"): Promise<Place | string> {
  try {
    const { type, bavail, bsize } = await statfs(folder);
    if (type !== TMPFS_MAGIC) return `${folder} is no tmpfs`;
    if (bavail * bsize < QUEUE_BYTES) return `${folder} has less than ${QUEUE_BYTES / 2 ** 20} MiB`;
    await (await tempDir("bench", folder))[Symbol.asyncDispose]();
    return { name: "memory", below: folder };
  } catch (error) {
    return `${folder}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

export class MailServer implements AsyncDisposable {
  /** The port without a filter. */
  readonly port: number;
  /** The port with a filter: see {@link filterBy}. */
  readonly filteredPort: number;
  readonly #postfix: Postfix;
  readonly #link: string;
  readonly #owned: AsyncDisposableStack;

  private constructor(postfix: Postfix, link: string, owned: AsyncDisposableStack) {
    this.#postfix = postfix;
    this.#link = link;
    this.#owned = owned;
    this.port = postfix.port("smtp");
    this.filteredPort = postfix.port("filtered");
  }

  static async start({ below }: Place): Promise<MailServer> {
    await using stack = new AsyncDisposableStack();
    const folder = stack.use(await tempDir("bench-mta"));
    const link = join(folder.path, "filter.sock");
    const postfix = stack.use(
      await startPostfix({
        services: [{ name: "filtered", milters: `unix:${link}` }],
        ...(below !== null && { below }),
      }),
    );
    return new MailServer(postfix, link, stack.move());
  }

  /** From now on the filter is the program that listens there; if Postfix does not reach it, it refuses mail. */
  async filterBy(socket: string): Promise<void> {
    await chmod(socket, 0o666);
    await rm(this.#link, { force: true });
    await symlink(socket, this.#link);
  }

  /** Messages that it has taken so far. */
  async taken(): Promise<number> {
    return (await this.#postfix.log()).match(/\/smtpd\[\d+\]: \w+: client=/g)?.length ?? 0;
  }

  /** Problems in its log. */
  async complaints(): Promise<string> {
    return (await this.#postfix.log())
      .split("\n")
      .filter((line) => /(warning|error|fatal|panic):/.test(line))
      .join("\n");
  }

  /** Waits until everything is delivered, so that no measurement includes work of the measurement before. */
  async emptied(): Promise<void> {
    const queues = ["incoming", "active", "deferred"].map((name) => join(this.#postfix.dir, "spool", name));
    await waitFor(
      async () => {
        const entries = await Promise.all(
          queues.map((queue) => readdir(queue, { recursive: true, withFileTypes: true })),
        );
        return entries.flat().every((entry) => !entry.isFile());
      },
      { what: "Postfix to deliver its queue", timeoutMs: 60_000, intervalMs: 50 },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}
