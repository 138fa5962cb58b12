/**
 * The handlers that the original pmilter's README shows, word for word, under the names that its configuration gives
 * them (see `../config/original.ts`), and one line each for the two that it does not show.
 */
const CONNECT = `puts "hello pmilter handler called from #{Pmilter.name}"
puts "client ipaddr #{Pmilter::Session.new.client_ipaddr}"
puts "client hostname #{Pmilter::Session.new.client_hostname}"
puts "client daemon #{Pmilter::Session.new.client_daemon}"
puts "handler phase name: #{Pmilter::Session.new.handler_phase_name}"
`;
const HELO = `puts "helo hostname: #{Pmilter::Session.new.helo_hostname}"
puts "tls client issuer: #{Pmilter::Session.new.cert_issuer}"
puts "tls client subject: #{Pmilter::Session.new.cert_subject}"
puts "tls session key size: #{Pmilter::Session.new.cipher_bits}"
puts "tls encrypt method: #{Pmilter::Session.new.cipher}"
puts "tls version: #{Pmilter::Session.new.tls_version}"
`;
const MAIL_FROM = `puts "env from from args: #{Pmilter::Session.new.envelope_from}"
puts "env from from symval: #{Pmilter::Session.new.mail_addr}"
puts "SASL login name: #{Pmilter::Session.new.auth_authen}"
puts "SASL login sender: #{Pmilter::Session.new.auth_author}"
puts "SASL login type: #{Pmilter::Session.new.auth_type}"

if Pmilter::Session.new.envelope_from == "<spam-from@example.com>"
  Pmilter.status = Pmilter::SMFIS_REJECT
end
`;
const RCPT_TO = `puts "env to from arg: #{Pmilter::Session.new.envelope_to}"
puts "env to from symval: #{Pmilter::Session.new.rcpt_addr}"
`;
const EOM = `puts "myhostname: #{Pmilter::Session.new.myhostname}"
puts "message_id: #{Pmilter::Session.new.message_id}"
puts "reveive_time: #{Time.at Pmilter::Session.new.receive_time}"
puts "add_header(X-Pmilter:True): #{Pmilter::Session::Headers.new['X-Pmilter'] = 'Enable'}"
`;
const HEADER = `puts "header: #{Pmilter::Session::Headers.new.header}"
`;
const BODY = `puts "body chunk; #{Pmilter::Session.new.body_chunk}"

# Skip over rest of same callbacks
# only once call body handler when return Pmilter::SMFIS_SKIP
Pmilter.status = Pmilter::SMFIS_SKIP
`;

/** What the third acceptance test of the original asks of `eom.rb` besides. */
export const CHANGES = `
if Pmilter::Session.new.envelope_from == "<change-from@example.com>"
  Pmilter::Session.new.change_envelope_from "<new-from@example.com>"
end

if Pmilter::Session.new.envelope_to == "<add-to@example.com>"
  Pmilter::Session.new.add_envelope_to "<new-to@example.com>"
end
`;

export const HANDLERS = {
  "handler/connect.rb": CONNECT,
  "handler/helo.rb": HELO,
  "handler/mail_from.rb": MAIL_FROM,
  "handler/rcpt_to.rb": RCPT_TO,
  "handler/header.rb": HEADER,
  "handler/body.rb": BODY,
  "handler/eom.rb": EOM,
  "handler/postconfig.rb": 'puts "run at postconfig phase"\n',
  "handler/master_exit.rb": 'puts "master exit at exit phase"\n',
} as const;
