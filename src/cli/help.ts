/** The help texts. They teach: the purpose of a command, each option, and lines to paste. */
import { RESTART_KEYS } from "../config/restart.ts";
import type { CommandName } from "./args.ts";

const GENERAL = `pmilter: a mail filter server. Postfix or Sendmail asks it over the milter protocol about each
step of an SMTP session; TypeScript handlers answer, and may change the message.

Usage: pmilter [COMMAND] [OPTIONS]

Commands:
  serve     run the server (this is what happens without a command)
  check     do all that a start does but listen, judge the handlers, and say what would happen
  send      play the mail server: send one message to the running server and show what it answers
  status    ask the running server how it is
  reload    have the running server read its configuration and handlers anew
  types     write the declarations that editors need beside handlers outside of pmilter's repository
  convert   write a TypeScript handler for a Ruby one of the original pmilter
  help      show this, or the help of a command: pmilter help send

Options:
  -c, --config FILE   the configuration, pmilter.toml in this folder by default
  -h, --help          show help; after a command, that command's
  -V, --version       show the version

Try:
  pmilter check -c pmilter.toml
  pmilter -c pmilter.toml

Exit codes: 0 fine; 1 the configuration or a handler is wrong; 2 wrong usage.
`;

const COMMANDS: Readonly<Record<CommandName, string>> = {
  serve: `Run the server.

Usage: pmilter [serve] -c pmilter.toml

  -c, --config FILE   the configuration, pmilter.toml in this folder by default

It listens where server.listen says and serves until it is told to stop. The log goes to standard error;
what handlers print goes to standard output.

  SIGTERM, SIGINT     accept no more, let open sessions end (at most server.stop_timeout seconds), run
                      master_exit_handler, remove the socket, exit 0; a second one does not wait.
                      During a start: end at once, exit 0
  SIGHUP              read the configuration and the handlers anew, as pmilter reload does

A handler, or a file it imports, that is saved is loaded at once, for the sessions that begin afterwards;
server.watch = false switches that off. One that does not load leaves the old code serving.

The mail server's side, for Postfix (main.cf):
  smtpd_milters = inet:127.0.0.1:8891
  milter_default_action = tempfail
`,
  check: `Do all that a start does but listen, judge the handlers, and say what would happen.

Usage: pmilter check -c pmilter.toml [--no-start] [--no-types]

  -c, --config FILE   the configuration, pmilter.toml in this folder by default
  --no-start          do not call the start() of filters
  --no-types          do not check the types of TypeScript handlers

The handlers' modules are run, and each filter is started and stopped again, with home.isCheck true; a start()
may take 10 seconds. Of TypeScript handlers the types are checked, as an editor does beside "pmilter types": a
tsconfig.json above them rules, where there is one. Verdicts that nobody returns, and reply texts and headers
that would throw, are found where they are written out.

Prints the filters in their order with the phases they handle, and what the mail server will be asked:
which events it sends, which it waits for, which changes are allowed. What is wrong is told on standard error
with file, line, column and what was expected. A reload refuses the same, but for what only types and reading
show: that it logs.

Exit codes: 0 fine; 1 the configuration or a handler is wrong; 2 wrong usage.
`,
  send: `Play the mail server: send one message to the running server, and show each answer and the result.

Usage: pmilter send -c pmilter.toml FILE.eml [OPTIONS]

  FILE.eml            the message, headers and body; - reads standard input
  -c, --config FILE   the running server's configuration: where it listens (default pmilter.toml)
  --from ADDRESS      envelope sender; by default that of the From header
  --to ADDRESS        envelope recipient, may be repeated; by default those of the To header
  --client IP         the SMTP client's address (default 127.0.0.1)
  --hostname NAME     the SMTP client's name (default localhost)
  --helo NAME         the name it gives in HELO (default that of --hostname)
  --macro NAME=VALUE  a macro, such as i=4ZB1 or auth_type=plain; may be repeated
  --as MTA            the habits of postfix (default) or sendmail
  --json              print the result as JSON: verdict, reply, recipients, phases, modifications, message,
                      failures

Of a message that got the fallback, the running server is asked why: which filter failed, where and with what
(control socket, server.control; server.log_level must be "error" or more).

Try:
  pmilter send -c pmilter.toml mail.eml --from a@example.com --to b@example.com --client 192.0.2.7

Exit codes: 0 the conversation went through, whatever the verdict; 1 it failed; 2 wrong usage.
`,
  status: `Ask the running server how it is: version, health, connections, generation, filters, whether the files on
disk are what serves, the last reload.

Usage: pmilter status -c pmilter.toml [--health] [--json]

  -c, --config FILE   the running server's configuration: where its control socket is (server.control)
  --health            the exit code tells how the server is
  --json              print it as JSON

The health is "ok", "starting" or "degraded", with the reasons: no worker can take sessions, connections wait,
workers are blocked, more than 5 % of the last minute's messages (of at least 10) got a fallback, or the files
on disk would not start.

Exit codes: 0 a server answers, whatever its health; with --health, 1 unless it is ok; 1 none answers;
2 wrong usage.
`,
  reload: `Have the running server read its configuration and handlers anew, and say whether that took.

Usage: pmilter reload -c pmilter.toml [--json]

  -c, --config FILE   the running server's configuration: where its control socket is (server.control)
  --json              print the result as JSON

Sessions that are open finish on the code they began with. What cannot be loaded changes nothing. These keys
of [server] need a restart: ${RESTART_KEYS.slice(0, 6).join(", ")},
${RESTART_KEYS.slice(6).join(", ")}.

Exit codes: 0 it took; 1 it did not, and the old code serves on, or no server answers; 2 wrong usage.
`,
  types: `Write what an editor needs beside handlers outside of pmilter's repository: types, documentation and
completion for import { … } from "pmilter".

Usage: pmilter types DIR

  DIR                 the folder of the handlers; made if it is not there

Writes DIR/pmilter.d.ts, the declarations of this version, and DIR/tsconfig.json. Both are written anew by
the next run, after an update say. A tsconfig.json that pmilter types did not write stays as it is, and the
options that it needs are printed; a pmilter.d.ts that it did not write is an error. The server reads neither.
"pmilter/testing" is not declared: tests with it run inside the repository.

Try:
  pmilter types handlers

Exit codes: 0 written; 1 a file cannot be written; 2 wrong usage.
`,
  convert: `Write a TypeScript handler for a Ruby one of the original pmilter.

Usage: pmilter convert FILE.rb [--phase PHASE]

  FILE.rb             the Ruby handler
  --phase PHASE       what it is for: connect, helo, envfrom and so on, postconfig or master_exit; by default
                      what its name says (mail_from.rb is for envfrom, rcpt_to.rb for envrcpt)

Writes FILE.ts beside it; one that is there is kept. What cannot be translated surely stands as a comment with
the Ruby lines in it, marked "Look here". Name the new file in [handler.session], and run pmilter check.

Try:
  pmilter convert handler/mail_from.rb

Exit codes: 0 written; 1 it does not compile, or cannot be written; 2 wrong usage.
`,
};

export function helpText(of: CommandName | null): string {
  return of === null ? GENERAL : COMMANDS[of];
}
