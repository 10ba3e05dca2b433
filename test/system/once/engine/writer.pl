# Counts in memory, and before each step compares that with what the disk says, twice: a file that is appended to,
# and one written through a shared mapping. A difference is written to /torn. Arguments: megabytes of memory to hold,
# seconds to wait between steps.
use strict;
use warnings;

my ($megabytes, $pause) = @ARGV;
# perl-base has no mmap: read(2) from a pipe into the mapping's address does what a store would.
my %calls = (x86_64 => { mmap => 9, read => 0 }, aarch64 => { mmap => 222, read => 63 });
my $machine = `/bin/busybox uname -m`;
chomp $machine;
my $call = $calls{$machine} or die "no system call numbers for $machine";

# Random, so that no two pages are alike.
my $ballast = '';
open(my $random, '<', '/dev/urandom') or die "/dev/urandom: $!";
sysread($random, $ballast, 1048576, length $ballast) for 1 .. $megabytes;
close $random;

sub put {
    my ($name, $text) = @_;
    open(my $file, '>', $name) or die "$name: $!";
    print $file $text;
    close $file;
}

put('/mapped', '00000000' . "\0" x 4088);
put('/appended', '');
open(my $mapped, '+<', '/mapped') or die "/mapped: $!";
my $address = syscall($call->{mmap}, 0, 4096, 3, 1, fileno($mapped), 0);
die "mmap: $!" if $address == -1;
open(my $appended, '>>', '/appended') or die "/appended: $!";
$appended->autoflush(1);
pipe(my $out, my $in) or die "pipe: $!";

my $count = 0;
while (1) {
    open(my $file, '<', '/mapped') or die "/mapped: $!";
    read($file, my $number, 8);
    close $file;
    my $size = -s '/appended';
    if ($number != $count || $size != 9 * $count) {
        put('/torn', "memory $count, mapping $number, appended " . $size / 9);
        exit 1;
    }
    $count++;
    my $next = sprintf('%08d', $count);
    syswrite($in, $next);
    die "read: $!" if syscall($call->{read}, fileno($out), $address, 8) != 8;
    syswrite($appended, "$next\n");
    select(undef, undef, undef, $pause) if $pause > 0;
}
