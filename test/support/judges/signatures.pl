# The same as signatures.py, with Mail::DKIM. It knows no Ed25519.
use strict;
use warnings;
use JSON::PP;
use MIME::Base64;
use Mail::DKIM::ARC::Verifier;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS;

my $task = decode_json(do { local $/; <STDIN> });
my %records = map { lc($_) => $task->{records}{$_} } keys %{ $task->{records} };

package Resolver {
    sub new { bless {}, shift }
    sub errorstring { "NXDOMAIN" }
    sub udp_timeout { 5 }
    sub tcp_timeout { 5 }

    sub send {
        my ($self, $name, $type) = @_;
        my $packet = Net::DNS::Packet->new($name, $type);
        my $text = $records{ lc $name };
        if (defined $text) {
            my @strings = unpack("(a255)*", $text);
            $packet->push(answer => Net::DNS::RR->new(name => $name, type => "TXT", txtdata => \@strings));
        }
        return $packet;
    }
    sub query { my $self = shift; my $packet = $self->send(@_); return $packet->answer ? $packet : undef }
}

Mail::DKIM::DNS::resolver(Resolver->new);

my @results;
for my $mail (@{ $task->{mails} }) {
    my $message = decode_base64($mail);
    my $verifier = Mail::DKIM::Verifier->new;
    my $arc = $message =~ /^ARC-Seal:/mi ? Mail::DKIM::ARC::Verifier->new : undef;
    for (grep { defined } $verifier, $arc) { $_->PRINT($message); $_->CLOSE }
    my @signatures = map { { a => $_->algorithm, d => $_->domain, s => $_->selector, result => $_->result } } $verifier->signatures;
    push @results, { dkim => \@signatures, arc => $arc ? $arc->result : "none" };
}
print encode_json(\@results);
