# helo.ts in Ruby.
s = Pmilter::Session.new
$kept = ($kept || 0) + s.helo_hostname.size + s.cert_issuer.size + s.cert_subject.size + s.cipher_bits.size + s.cipher.size + s.tls_version.size
