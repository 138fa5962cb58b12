# Reads mails from standard input, each with its length in front, and writes the leaves of each as a line of JSON.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use JSON::PP;
use MIME::Parser;
use MIME::WordDecoder qw(mime_to_perl_string);

binmode STDIN;
binmode STDOUT, ':utf8';
$| = 1;
# MIME::Parser warns of what is odd in a mail.
local $SIG{__WARN__} = sub {};
my $json = JSON::PP->new->canonical;

sub leaves {
  my ($entity) = @_;
  my @parts = $entity->parts;
  return map { leaves($_) } @parts if @parts;
  my $body = $entity->bodyhandle;
  my $content = defined $body ? $body->as_string : '';
  my $name = $entity->head->recommended_filename;
  $name = '' unless defined $name;
  return {
    type => lc($entity->effective_type // ''),
    name => $name,
    hash => sha256_hex($content),
    size => length($content),
    raw => '',
    fields => [],
    isBroken => JSON::PP::false,
  };
}

while (read(STDIN, my $length, 4) == 4) {
  my $size = unpack('N', $length);
  my $mail = '';
  while (length($mail) < $size) {
    read(STDIN, $mail, $size - length($mail), length($mail)) or last;
  }
  # A parser is for one mail: it keeps what it found.
  my $parser = MIME::Parser->new;
  $parser->output_to_core(1);
  $parser->tmp_to_core(1);
  $parser->extract_nested_messages(1);
  $parser->extract_uuencode(1);
  $parser->decode_bodies(1);
  my $entity = eval { $parser->parse_data($mail) };
  my $answer = defined $entity ? [leaves($entity)] : { error => "$@" };
  print $json->encode($answer), "\n";
}
