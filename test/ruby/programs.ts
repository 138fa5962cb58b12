/** Programs that were written for the original, in the shape of those that are public. */

/** A limit of messages for each domain of recipients. */
export const LIMIT = `lock = Mutex.new :global => true
class Counter
  def initialize(name)
    @kvs = Cache.new :namespace => "limits"
    @name = name
  end
  def up
    n = @kvs[@name].to_i + 1
    @kvs[@name] = n.to_s
    n
  end
end
domain = Pmilter::Session.new.envelope_to.split("@")[1]
timeout = lock.try_lock_loop(50000) do
  begin
    n = Counter.new(domain).up
    Pmilter.status = Pmilter::SMFIS_REJECT if n > 3
  ensure
    lock.unlock
  end
end
p "no lock" if timeout
`;

/** A detector of floods from an address: what it counts is kept in pairs, and its object reads them when it is made. */
export const FLOODS = `global_mutex = Mutex.new :global => true

class Detector
  def initialize config
    @cache = Cache.new :namespace => "floods"
    @config = config
    @now = Time.now.to_i
    @key = config[:counter_key].to_s
    @time_key = "#{@key}_time"
    @data = self._read
    self._write @data
  end

  def data
    @data
  end

  def _read
    count = @cache[@key].to_i
    before = @cache[@time_key].to_i
    diff = before == 0 ? 0 : @now - before
    {:count => count, :key => @key, :diff => diff}
  end

  def _write data
    if data[:count] >= @config[:limit] && data[:diff] < @config[:time]
      @cache.set @key, (@config[:behind] + 1).to_s
    else
      @cache[@key] = (data[:count] + 1).to_s
    end
    @cache[@time_key] = @now.to_s
  end

  def detect?
    @data[:count] >= @config[:limit] || @data[:count] < 0
  end
end

config = {
  :counter_key => Pmilter::Session.new.client_ipaddr,
  :limit => 3,
  :time => 3600,
  :behind => -3,
}

timeout = global_mutex.try_lock_loop(50000) do
  detector = Detector.new config
  data = detector.data
  p "floods: #{{"count" => data[:count], "key" => data[:key]}}"
  begin
    Pmilter.status = Pmilter::SMFIS_REJECT if detector.detect?
  rescue => e
    raise "floods: #{e}"
  ensure
    global_mutex.unlock
  end
end
p "floods: no lock" if timeout
`;

/** The limit once more, with a period: what it keeps is deleted when its time is over. */
export const PERIODS = `global_mutex = Mutex.new :global => true

class AccessLimiter
  def initialize config
    @current_time = Time.new.localtime.to_i
    @counter_kvs = Cache.new :namespace => "access_limiter"
    @counter_key = config[:target]
    raise "config[:target] is nil" unless @counter_key
    @interval_time = config[:interval_time].to_i
  end

  def cleanup
    ctime = @counter_kvs["create_time_#{@counter_key}"].to_i
    return false if ctime == 0
    if (ctime + @interval_time) < @current_time
      @counter_kvs.delete("create_time_#{@counter_key}")
      @counter_kvs.delete(@counter_key)
      true
    else
      false
    end
  end

  def current
    @counter_kvs[@counter_key]
  end

  def increment
    cur = current.to_i
    if cur == 0
      @counter_kvs["create_time_#{@counter_key}"] = @current_time.to_s
    end
    @counter_kvs[@counter_key] = (cur + 1).to_s
  end
end

threshold = 10
target = Pmilter::Session.new.envelope_to.split("@")[1]
interval = Pmilter::Session.new.envelope_from == "<short@example.com>" ? -1 : 60
limiter = AccessLimiter.new({:target => target, :interval_time => interval})
p "cleanup #{target}" if limiter.cleanup

timeout = global_mutex.try_lock_loop(50000) do
  begin
    limiter.increment
    p "increment #{target} current: #{limiter.current} threshold: #{threshold}"
    if limiter.current.to_i > threshold
      p "reject #{target} threshold: #{threshold}"
      Pmilter.status = Pmilter::SMFIS_REJECT
    end
  rescue => e
    p "increment error #{target} #{e}"
  ensure
    global_mutex.unlock
  end
end
p "no lock" if timeout
`;
