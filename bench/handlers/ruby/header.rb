# header.ts in Ruby.
Pmilter::Session::Headers.new.header.each { |name, value| $kept = ($kept || 0) + name.size + value.size }
