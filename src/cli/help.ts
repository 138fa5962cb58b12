/** The help texts. They teach: the purpose of a command, each option, and lines to paste. */
import { RESTART_KEYS } from "../config/restart.ts";
import type { CommandName } from "./args.ts";

const GENERAL = `pmilter: a mail filter server. Postfix or Sendmail asks it over the milter protocol about each
step of an SMTP session; TypeScript handlers answer, and may change the message.

Usage: pmilter [COMMAND] [OPTIONS]

Commands:
  serve     run the server (also without a command)
  check     start without listening, check the handlers, and print the result
  send      play the mail server: send a message to the running server and show its answers
  try       pass messages through the configuration, without a server, and show the results
  status    show the state of the running server
  reload    have the running server read its configuration and handlers again
  store     show and change what filters remember
  dkim      make keys for the filter dkim-sign, and compare the DNS with them
  types     write the declarations that editors need for handlers outside of pmilter's repository
  convert   write a TypeScript handler for a Ruby handler of the original pmilter
  help      show this, or the help of a command: pmilter help send

Options:
  -c, --config FILE   the configuration, pmilter.toml in this folder by default
  -h, --help          show help; after a command, that command's
  -V, --version       show the version

Try:
  pmilter check -c pmilter.toml
  pmilter -c pmilter.toml

Exit codes: 0 success; 1 a fault in the configuration or a handler; 2 wrong usage.
`;

/** The options that send and try share. */
const MAIL_OPTIONS = `  --from ADDRESS      envelope sender; by default that of the From header
  --to ADDRESS        envelope recipient, may be repeated; by default those of the To header
  --client IP         the SMTP client's address (default 127.0.0.1)
  --hostname NAME     the SMTP client's name (default localhost)
  --helo NAME         the name it gives in HELO (default that of --hostname)
  --macro NAME=VALUE  a macro, such as i=4ZB1 or auth_type=plain; may be repeated
  --as MTA            the habits of postfix (default) or sendmail`;

const COMMANDS: Readonly<Record<CommandName, string>> = {
  serve: `Run the server.

Usage: pmilter [serve] -c pmilter.toml

  -c, --config FILE   the configuration, pmilter.toml in this folder by default

It listens on the addresses of server.listen until it gets a signal to stop. The log goes to standard error,
the output of handlers to standard output.

  SIGTERM, SIGINT     accept no more, let open sessions end (at most server.stop_timeout seconds), run
                      master_exit_handler, remove the socket, exit 0; a second one does not wait.
                      During a start: end at once, exit 0
  SIGHUP              read the configuration and the handlers again, as pmilter reload does

When a handler, or a file it imports, is saved, the server loads it at once, for the sessions that begin
afterwards; server.watch = false switches that off. If it does not load, the old code keeps serving.

The mail server's side, for Postfix (main.cf):
  smtpd_milters = inet:127.0.0.1:8891
  milter_default_action = tempfail
`,
  check: `Start without listening, check the handlers, and print the result.

Usage: pmilter check -c pmilter.toml [--no-start] [--no-types]

  -c, --config FILE   the configuration, pmilter.toml in this folder by default
  --no-start          do not call the start() of filters
  --no-types          do not check the types of TypeScript handlers

The check runs the handlers' modules, and starts and stops each filter, with home.isCheck true; a start() may
take 10 seconds. It checks the types of TypeScript handlers, as an editor does beside "pmilter types"; the
options of a tsconfig.json above a handler apply. It finds verdicts that are made and not returned, and
literal reply texts and headers that would throw.

Prints the filters in their order with the phases they handle, and the negotiation with the mail server:
which events it sends, which it waits for, which changes are allowed. Faults go to standard error with file,
line, column and the expected value. A reload refuses the same faults, except those of types and calls, which
it logs.

Exit codes: 0 success; 1 a fault in the configuration or a handler; 2 wrong usage.
`,
  send: `Play the mail server: send a message to the running server, and show each answer and the result.

Usage: pmilter send -c pmilter.toml FILE.eml [OPTIONS]

  FILE.eml            the message, headers and body; - reads standard input
  -c, --config FILE   the running server's configuration: where it listens (default pmilter.toml)
${MAIL_OPTIONS}
  --json              print the result as JSON: verdict, reply, recipients, phases, modifications, message,
                      failures

If the message got a fallback, send asks the running server which filter failed, where and with which error
(control socket, server.control; server.log_level must be "error" or more).

Try:
  pmilter send -c pmilter.toml mail.eml --from a@example.com --to b@example.com --client 192.0.2.7

Exit codes: 0 the conversation was completed, with any verdict; 1 it failed; 2 wrong usage.
`,
  try: `Pass messages through the configuration in memory, and show each answer and the result. No server is asked.

Usage: pmilter try -c pmilter.toml FILE.eml|DIR… [OPTIONS]

  FILE.eml|DIR        messages: files with headers and body, - for standard input; of a folder and its
                      subfolders the files that end in .eml, and all of a Maildir's cur and new
  -c, --config FILE   the configuration, pmilter.toml in this folder by default
${MAIL_OPTIONS}
  --listener ADDRESS  the address of server.listen by which the sessions come (default the first), for filters
                      with a condition on listeners; conditions on a share hold
  --brief             print a line for each message
  --json              print a line of JSON for each message: file, verdict, reply, recipients, phases,
                      modifications, message, failures, warnings, verdicts, notes, filters
  --strict            exit with 1 also if a handler failed, or made a verdict that it did not return

The handlers are loaded and started as in the server, with session.trial true. Each message has a session of
its own. A handler that does not return is ended after server.block_timeout, and its message gets the fallback
that the server would give. Besides the output of "pmilter send" there are warnings, the verdicts with file
and line, also of filters in observe mode, lines of session.log, and the time of each filter. After several
messages a line counts them. The output of handlers goes to standard error.

Try:
  pmilter try -c pmilter.toml mail.eml --from a@example.com --to b@example.com
  pmilter try -c pmilter.toml --brief --strict test/mails/

Exit codes: 0 each message was tried, with any verdict; 1 a message could not be read or tried, a fault in the
configuration or a handler, or what --strict says; 2 wrong usage.
`,
  status: `Show the state of the running server: version, health, connections, generation, filters, whether it serves
the files on disk, the last reload.

Usage: pmilter status -c pmilter.toml [--health] [--json]

  -c, --config FILE   the running server's configuration: where its control socket is (server.control)
  --health            the exit code is 1 unless the health is ok
  --json              print it as JSON

The health is "ok", "starting" or "degraded", with the reasons: no worker can take sessions, connections wait,
workers are blocked, more than 5 % of the last minute's messages (of at least 10) got a fallback, or the files
on disk would not start.

Exit codes: 0 a server answers, with any health; with --health, 1 unless it is ok; 1 no server answers;
2 wrong usage.
`,
  reload: `Have the running server read its configuration and handlers again, and print the result.

Usage: pmilter reload -c pmilter.toml [--json]

  -c, --config FILE   the running server's configuration: where its control socket is (server.control)
  --json              print the result as JSON

Open sessions finish on the code that they began with. A version that does not load changes nothing.

These keys of [server] need a restart: ${RESTART_KEYS.slice(0, 6).join(", ")},
${RESTART_KEYS.slice(6).join(", ")}.

Exit codes: 0 reloaded; 1 failed (the old code keeps serving), or no server answers; 2 wrong usage.
`,
  store: `Show and change what filters remember (session.store), also while the server runs.

Usage: pmilter store get FILTER KEY -c pmilter.toml
       pmilter store set FILTER KEY VALUE [--ttl TIME] -c pmilter.toml
       pmilter store delete FILTER KEY -c pmilter.toml
       pmilter store list FILTER [PREFIX] -c pmilter.toml

  FILTER              the name of the filter, as pmilter status shows it
  KEY, PREFIX         a key, the beginning of keys
  VALUE               JSON, such as 5, true or '"text"'
  --ttl TIME          how long the value is kept, such as 10m or 36d; without it for ever
  -c, --config FILE   the configuration, whose [store] says where values are (default pmilter.toml)

get prints the value as JSON, list a line of JSON for each value: key, value. What filters take from limits is
not shown. The command needs the rights of the server's user for a SQLite file.

Try:
  pmilter store list greylist

Exit codes: 0 done; 1 there is no such value, or the store cannot be used; 2 wrong usage.
`,
  dkim: `Make a key for the filter dkim-sign, or compare the DNS with the keys of the configuration.

Usage: pmilter dkim new DOMAIN [SELECTOR] [--ed25519] -c pmilter.toml
       pmilter dkim check DOMAIN [SELECTOR] -c pmilter.toml

  DOMAIN              the domain in From, such as example.org
  SELECTOR            the key's name: its record is SELECTOR._domainkey.DOMAIN. By default new takes one with
                      the month, such as s202612, and check takes all of the domain
  --ed25519           the key is Ed25519; by default it is RSA with 2,048 bits
  -c, --config FILE   the configuration: its folder gets the key, its [dns] is asked (default pmilter.toml)

new writes keys/DOMAIN.SELECTOR.pem beside the configuration, readable by its owner alone, and overwrites
nothing. Started as root, it gives the file to server.user. It prints the record, as a line of a zone file,
and the lines for the configuration. check names what is wrong with a record, and prints the one that is
expected.

Try:
  pmilter dkim new example.org s1
  pmilter dkim check example.org

Exit codes: 0 written, or all records have their keys; 1 a file cannot be written, or a record is missing, has
another key, or cannot be used; 2 wrong usage.
`,
  types: `Write the files that an editor needs for handlers outside of pmilter's repository: types, documentation
and completion for import { … } from "pmilter".

Usage: pmilter types DIR

  DIR                 the folder of the handlers; made if it is not there

Writes DIR/pmilter.d.ts, the declarations of this version, and DIR/tsconfig.json. The next run, after an
update, writes both again. A tsconfig.json that pmilter types did not write stays as it is, and the options
that it needs are printed; a pmilter.d.ts that pmilter types did not write is an error. The server reads
neither file.
"pmilter/testing" is not declared: tests with it run inside the repository.

Try:
  pmilter types handlers

Exit codes: 0 written; 1 a file cannot be written; 2 wrong usage.
`,
  convert: `Write a TypeScript handler for a Ruby handler of the original pmilter.

Usage: pmilter convert FILE.rb [--phase PHASE]

  FILE.rb             the Ruby handler
  --phase PHASE       its phase: connect, helo, envfrom and so on, postconfig or master_exit; by default the
                      phase of its name (mail_from.rb is for envfrom, rcpt_to.rb for envrcpt)

Writes FILE.ts beside it, unless that file exists. Ruby lines without a sure translation stand in a comment,
marked "Look here". Name the new file in [handler.session], and run pmilter check.

Try:
  pmilter convert handler/mail_from.rb

Exit codes: 0 written; 1 it does not compile, or cannot be written; 2 wrong usage.
`,
};

export function helpText(of: CommandName | null): string {
  return of === null ? GENERAL : COMMANDS[of];
}
