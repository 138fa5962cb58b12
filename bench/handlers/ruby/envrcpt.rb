# envrcpt.ts in Ruby.
s = Pmilter::Session.new
$kept = ($kept || 0) + s.envelope_to.size + s.rcpt_addr.size
