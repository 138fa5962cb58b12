# Mutex of mruby-mutex. The lock itself is the worker's: see locks.ts.
class Mutex
  def initialize(options = nil)
    global = options.nil? ? false : options[:global]
    raise ":global => true or false" unless global == true || global == false
    @global = global
    @id = Pmilter::Services.next_id
  end

  def lock
    case Pmilter::Services.ask("lock", @id, @global, nil)
    when "own" then raise "Mutex#lock: this script has locked it already"
    when "no" then raise "Mutex#lock: it was not free within server.block_timeout"
    end
    0
  end

  def try_lock
    Pmilter::Services.ask("lock", @id, @global, 0) == "yes"
  end

  def unlock
    Pmilter::Services.ask("unlock", @id, @global)
    0
  end

  def locked?
    Pmilter::Services.ask("isLocked", @global)
  end

  # Microseconds. True if the time was over.
  def try_lock_loop(interval = 100_000, timeout = 5_000_000)
    if Pmilter::Services.ask("lock", @id, @global, timeout / 1000.0) == "yes"
      yield
      return false
    end
    unlock
    true
  end

  def synchronize
    lock
    begin
      yield
    ensure
      unlock
    end
  end
end

# Of mruby-sleep, which mruby-mutex brought: the thread stands still.
module Kernel
  def usleep(microseconds)
    Pmilter::Services.pause(microseconds / 1000.0)
    microseconds.to_i
  end

  def sleep(seconds)
    Pmilter::Services.pause(seconds * 1000.0)
    seconds.round
  end
end
