# body.ts in Ruby.
s = Pmilter::Session.new
$kept = ($kept || 0) + s.body_chunk.size
Pmilter.status = Pmilter::SMFIS_SKIP
