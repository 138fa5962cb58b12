/**
 * A phase file for every phase: decides by a word, the first of the client's name at connect, of the argument at helo,
 * envrcpt and unknown, else of the sender. Other words decide nothing.
 */
import { accept, discard, type Phase, reject, type Session, skip, tempfail } from "pmilter";

const DECISIONS: Readonly<Record<string, () => unknown>> = {
  accept: () => accept(),
  discard: () => discard(),
  skip: () => skip(),
  reject: () => reject(),
  tempfail: () => tempfail(),
  refuse: () => reject("550 5.7.1 Not welcome here"),
  explain: () => reject("550 5.7.7 Not 100% welcome\nwrite to postmaster"),
  plain: () => reject("551 No enhanced code was given"),
  later: () => tempfail("450 4.2.0 Come back later"),
  wait: () => tempfail("450 4.7.1 Greylisted\ntry again\nin five minutes"),
  close: () => tempfail("421 4.3.2 Closing"),
  fail: () => {
    throw new Error("this handler fails");
  },
};

export default function word(session: Session, argument?: string): unknown {
  const words: Readonly<Partial<Record<Phase, string | undefined>>> = {
    connect: session.client.hostname,
    helo: argument,
    envrcpt: argument,
    unknown: argument,
  };
  const text = session.phase in words ? words[session.phase] : (session as Session<"eom">).message.sender.address;
  return DECISIONS[/\w+/.exec(text?.toLowerCase() ?? "")?.[0] ?? ""]?.();
}
