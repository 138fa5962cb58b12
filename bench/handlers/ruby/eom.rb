# eom.ts in Ruby.
s = Pmilter::Session.new
$kept = ($kept || 0) + s.myhostname.size + s.message_id.size + s.receive_time
Pmilter::Session::Headers.new['X-Pmilter'] = 'Enable'
