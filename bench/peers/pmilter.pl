# The callbacks of bench/handlers on Sendmail::PMilter, with its default dispatcher, which forks for each connection:
# they read the same values and add the same header. The module speaks version 2 of the protocol, which has no DATA. A
# benchmark's peer, not an example.
#
# Argument: the socket's path.
use strict;
use warnings;
use Encode ();
use Sendmail::PMilter qw(:all);
use Socket ();

my $kept = 0;

sub keep {
    for my $value (@_) { $kept += length $value if defined $value }
}

my %callbacks = (
    connect => sub {
        my ($ctx, $hostname, $packed) = @_;
        my $address = '';
        if (defined $packed && Socket::sockaddr_family($packed) == Socket::AF_INET()) {
            $address = Socket::inet_ntoa((Socket::unpack_sockaddr_in($packed))[1]);
        }
        keep($hostname, $address, $ctx->getsymval('{daemon_name}'));
        return SMFIS_CONTINUE;
    },
    helo => sub {
        my ($ctx, $hostname) = @_;
        keep($hostname);
        keep($ctx->getsymval($_)) for qw({cert_issuer} {cert_subject} {cipher_bits} {cipher} {tls_version});
        return SMFIS_CONTINUE;
    },
    envfrom => sub {
        my ($ctx, $sender) = @_;
        keep($sender);
        keep($ctx->getsymval($_)) for qw({mail_addr} {auth_authen} {auth_author} {auth_type});
        return $sender eq '<spam-from@example.com>' ? SMFIS_REJECT : SMFIS_CONTINUE;
    },
    envrcpt => sub {
        my ($ctx, $recipient) = @_;
        keep($recipient, $ctx->getsymval('{rcpt_addr}'));
        return SMFIS_CONTINUE;
    },
    data => sub { return SMFIS_CONTINUE },
    header => sub {
        my ($ctx, $name, $value) = @_;
        keep($name, $value);
        return SMFIS_CONTINUE;
    },
    eoh => sub { return SMFIS_CONTINUE },
    body => sub {
        my ($ctx, $chunk) = @_;
        keep(Encode::decode('UTF-8', $chunk));
        return SMFIS_CONTINUE;
    },
    eom => sub {
        my ($ctx) = @_;
        keep($ctx->getsymval('j'), $ctx->getsymval('i'));
        $kept += time;
        $ctx->addheader('X-Pmilter', 'Enable');
        return SMFIS_CONTINUE;
    },
    close => sub { return SMFIS_CONTINUE },
);

die "usage: pmilter.pl SOCKET\n" unless @ARGV == 1;
my $milter = Sendmail::PMilter->new;
# A unix socket with a full backlog refuses: all connections of the generator may come at once.
$milter->set_listen(512);
$milter->setconn("local:$ARGV[0]") or die "cannot listen on $ARGV[0]\n";
$milter->register('bench', \%callbacks, SMFIF_ADDHDRS);
$milter->main;
