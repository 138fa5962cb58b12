# data.ts in Ruby.
s = Pmilter::Session.new
$kept = ($kept || 0) + s.handler_phase_name.size
