# envfrom.ts in Ruby.
s = Pmilter::Session.new
$kept = ($kept || 0) + s.envelope_from.size + s.mail_addr.size + s.auth_authen.size + s.auth_author.size + s.auth_type.size
Pmilter.status = Pmilter::SMFIS_REJECT if s.envelope_from == "<spam-from@example.com>"
