/** The example run that the original pmilter's README shows: what was sent, and what its handlers printed. */

/** What differs here from handlers of ours is said. */
export interface OriginalRun {
  /** `mruby_connect_handler` there; phases have one name here. */
  readonly phaseName: string;
}

export function originalLines({ phaseName }: OriginalRun): readonly (string | RegExp)[] {
  return [
    "hello pmilter handler called from pmilter",
    "client ipaddr 192.168.123.123",
    "client hostname mx.example.net",
    "client daemon milter-test-server",
    `handler phase name: ${phaseName}`,
    "helo hostname: delian",
    "tls client issuer: cert_issuer",
    "tls client subject: cert_subject",
    "tls session key size: 0",
    "tls encrypt method: 0",
    "tls version: 0",
    "env from from args: <from@example.com>",
    "env from from symval: mail_addr",
    "SASL login name: ",
    "SASL login sender: ",
    "SASL login type: ",
    "env to from arg: <to@example.com>",
    "env to from symval: <to@example.com>",
    'header: {"From"=>"<from@example.com>"}',
    'header: {"To"=>"<to@example.com>"}',
    'header: {"Subject"=>"Hello"}',
    "body chunk; Hello world!!",
    "myhostname: mail.example.com",
    "message_id: message-id",
    // Wed Nov 02 21:02:15 2016
    /^reveive_time: (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \d{4}$/,
    "add_header(X-Pmilter:True): Enable",
  ];
}

/** What milter-test-server gave. */
const MACROS = {
  daemon_name: "milter-test-server",
  cert_issuer: "cert_issuer",
  cert_subject: "cert_subject",
  cipher_bits: "0",
  cipher: "0",
  tls_version: "0",
  mail_addr: "mail_addr",
  rcpt_addr: "<to@example.com>",
  i: "message-id",
};

/** The arguments of `pmilter send` that make the mail server of that run. */
export const ORIGINAL_ARGUMENTS: readonly string[] = [
  ..."--from from@example.com --to to@example.com".split(" "),
  ..."--client 192.168.123.123 --hostname mx.example.net --helo delian".split(" "),
  ...Object.entries(MACROS).flatMap(([name, value]) => ["--macro", `${name}=${value}`]),
];
