// Asks unknown senders to come again, as mail servers do and most programs that send spam do not: docs/handlers/greylist.md.
import { type Address, defineFilter, type Log, type Results, type Store, tempfail } from "pmilter";
import { duration, type InferOutput, string, table } from "pmilter/options";
import { networkOf } from "./lib/access-networks.ts";
import { senderKey } from "./lib/greylist/sender.ts";
import { count, made, mailboxes, networks, option, PREFIX_OPTIONS, type Refusal, refusalOf } from "./lib/options.ts";
import { isOwn } from "./lib/origin.ts";
import { asKey } from "./lib/store-keys.ts";
import { ON_STORE_FAILURE, openStore, StoreTrouble } from "./lib/store-trouble.ts";

/** Stands in the text for the seconds that are left. */
const SECONDS = "{seconds}";

const entries = {
  delay: option(duration(), "5m", "how long an unknown sender is asked to wait"),
  window: option(duration(), "2d", "how long after its first attempt it may come again"),
  keep: option(duration(), "36d", "how long a sender that came again is known after its last message"),
  auto_pass: option(count(0), 5, "so many messages of known senders make their whole network known; `0`: never"),
  known_senders: option(mailboxes(), [], "senders that need not come again: mailboxes, domains, or `.example.com`"),
  except_clients: option(networks(), [], "clients whose mail passes: addresses and networks"),
  except_recipients: option(mailboxes(), [], "recipients whose mail passes: mailboxes and domains"),
  text: option(
    string(),
    `451 4.7.1 Greylisted, try again in ${SECONDS} s`,
    "the reply; `{seconds}` is the time to wait",
  ),
  ...PREFIX_OPTIONS,
  on_store_failure: ON_STORE_FAILURE,
};

export const options = made(table(entries), (given, fail) => {
  if (given.window <= given.delay) fail("window", "more than delay, or nobody could come again");
  const sample = refusalOf("tempfail", given.text.replaceAll(SECONDS, "1"));
  return typeof sample === "string" ? fail("text", sample) : given;
});

type Options = InferOutput<typeof options>;

/** A triplet whose mail has passed. */
interface Passed {
  readonly recipient: string;
  readonly key: string;
}

/** What is known of a message. */
class MessageState {
  /** Recipients whose mail has passed since the sender is known. */
  readonly passed: Passed[] = [];
  /** The key of the client's network, if it has been looked at. */
  network: string | null = null;
  isNetworkKnown = false;
}

class Own {
  readonly store: Store;
  readonly trouble = new StoreTrouble();

  constructor(store: Store) {
    this.store = store;
  }
}

/** The states of a triplet in the store. */
const WAITING = "waiting";
const KNOWN = "known";

const STORE_FAILED = tempfail("451 4.3.0 Greylist cannot be looked up, try again later");

/** A filter in front of this one has found that the sender's domain allows this client (SPF). */
function passesSpf(results: Pick<Results, "get">): boolean {
  const spf = results.get("spf");
  if (typeof spf !== "object" || spf === null) return spf === "pass";
  return Object.entries(spf).some(([name, value]) => name === "result" && value === "pass");
}

interface Asked {
  readonly own: Own;
  readonly options: Options;
  readonly log: Log;
  readonly state: MessageState;
}

/** Looks a triplet up. @returns the seconds to wait; 0 if it may pass */
async function waitOf({ log, options, own, state }: Asked, network: string, key: string): Promise<number> {
  const { store } = own;
  const delay = options.delay / 1000;
  const [messages, triplet] = await Promise.all([store.get(network), store.get(key)]);
  if (options.auto_pass > 0 && typeof messages === "number" && messages >= options.auto_pass) {
    state.isNetworkKnown = true;
    return 0;
  }
  if (triplet === KNOWN) return 0;
  // The window of `take` is the delay: it begins before the triplet is there, so nobody finds the one without the other.
  const wait = store.take(key, { limit: 1, per: delay });
  if (triplet === undefined) {
    const [{ ok, retryAfter }] = await Promise.all([wait, store.set(key, WAITING, { ttl: options.window / 1000 })]);
    return ok ? Math.ceil(delay) : retryAfter;
  }
  const { ok, retryAfter } = await wait;
  if (!ok) return retryAfter;
  // At once, and not when the message has passed: who came again need not do so because another filter defers the mail.
  await store.set(key, KNOWN, { ttl: options.keep / 1000 });
  log("a sender came again, and is known from now on", { triplet: key });
  return 0;
}

export default defineFilter({
  name: "greylist",
  options,
  messageState: () => new MessageState(),

  async start(_, home) {
    await openStore(home.store);
    return new Own(home.store);
  },

  async envrcpt(session): Promise<Refusal | undefined> {
    const { client, log, message, options, own } = session;
    const { results, sender, state } = message;
    const recipient = message.recipients.at(-1)!;
    const network = networkOf(client.address, { ipv4: options.ipv4_prefix, ipv6: options.ipv6_prefix });
    // A bounce is not sent again by all servers, and probes of senders' addresses have no sender either.
    if (sender.mailbox === "" || network === "" || isOwn(session, options.except_clients)) return undefined;
    if (options.known_senders.has(sender) || options.except_recipients.has(recipient) || passesSpf(results)) {
      return undefined;
    }
    const key = tripletKey(network, sender, recipient);
    state.network = `network ${network}`;
    let seconds: number;
    try {
      seconds = await waitOf({ log, options, own, state }, state.network, key);
    } catch (error) {
      const passes = options.on_store_failure === "pass";
      own.trouble.report(error, log, passes ? "mail is not delayed" : "mail is refused for now");
      return passes ? undefined : STORE_FAILED;
    }
    if (seconds > 0) return refusalOf("tempfail", options.text.replaceAll(SECONDS, String(seconds))) as Refusal;
    if (!state.isNetworkKnown) state.passed.push({ recipient: recipient.address, key });
    return undefined;
  },

  async outcome(session, { recipients }) {
    const { log, message, options, own } = session;
    const { isNetworkKnown, network, passed } = message.state;
    if (network === null || (passed.length === 0 && !isNetworkKnown)) return;
    const accepted = new Set(recipients.filter(({ verdict }) => verdict === "accept").map(({ address }) => address));
    const good = passed.filter(({ recipient }) => accepted.has(recipient));
    if (good.length === 0 && !(isNetworkKnown && accepted.size > 0)) return;
    const { store } = own;
    const ttl = options.keep / 1000;
    try {
      await Promise.all([
        ...good.map(({ key }) => store.set(key, KNOWN, { ttl })),
        countMessage(store, network, isNetworkKnown, options),
      ]);
    } catch (error) {
      own.trouble.report(error, log, "what is known of senders is not prolonged");
    }
  },
});

/** Counts a message of a network, or prolongs what is known of the network. */
async function countMessage(store: Store, network: string, isKnown: boolean, options: Options): Promise<void> {
  const { auto_pass, keep } = options;
  if (auto_pass === 0) return;
  if (isKnown) await store.set(network, auto_pass, { ttl: keep / 1000 });
  else await store.increment(network, 1, { ttl: keep / 1000 });
}

function tripletKey(network: string, sender: Address, recipient: Address): string {
  return `mail ${asKey(`${network} ${senderKey(sender, recipient)} ${recipient.mailbox.toLowerCase()}`)}`;
}
