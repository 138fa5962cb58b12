# connect.ts in Ruby.
s = Pmilter::Session.new
$kept = ($kept || 0) + s.client_ipaddr.size + s.client_hostname.size + s.client_daemon.size + s.handler_phase_name.size
