# Cache of mruby-localmemcache, on the store.
class Cache
  class CacheError < StandardError; end
  class ShmError < CacheError; end
  class MemoryPoolFull < CacheError; end
  class LockError < CacheError; end
  class LockTimedOut < CacheError; end
  class OutOfMemoryError < CacheError; end
  class ArgError < CacheError; end
  class InitError < CacheError; end
  class RecoveryFailed < CacheError; end
  class ShmLockFailed < CacheError; end
  class ShmUnlockFailed < CacheError; end
  class MemoryPoolClosed < CacheError; end
  class DBVersionNotSupported < CacheError; end

  # Its name in the store, from the options of new and drop.
  def self.pool(options)
    raise ArgumentError, "expected a Hash" unless options.is_a?(Hash)
    kind = options[:namespace].nil? ? :filename : :namespace
    name = options[kind]
    raise ArgError, "expected :namespace or :filename" if name.nil?
    raise TypeError, "expected String for :#{kind}" unless name.is_a?(String)
    [kind.to_s, name]
  end

  def self.drop(options)
    Pmilter::Services.ask("cacheClear", pool(options))
    nil
  end

  def initialize(options)
    @pool = Cache.pool(options)
    @bytes = ((options[:size_mb] || 0) > 0 ? options[:size_mb] : 1024) * 1024 * 1024
    @is_open = true
  end

  def get(key)
    ask("cacheGet", text(key))
  end

  def [](key)
    ask("cacheGet", text(key))
  end

  def get_by_no_lock(key)
    ask("cacheGet", text(key))
  end

  def set(key, value)
    self[key] = value
    nil
  end

  def []=(key, value)
    raise TypeError, "both key and value must be STRING" unless key.is_a?(String) && value.is_a?(String)
    raise MemoryPoolFull, "a value has at most 65000 bytes" unless ask("cacheSet", key, value)
  end

  def delete(key)
    ask("cacheDelete", text(key))
  end

  def clear
    ask("cacheClear")
    nil
  end

  def size
    count = 0
    each_page { |pairs| count += pairs.length }
    count
  end

  def keys
    each_page_of_pairs.map { |pair| pair[0] }
  end

  def each_pair
    each_page { |pairs| pairs.each { |pair| yield pair[0], pair[1] } }
    nil
  end

  # Nil if there is none.
  def random_pair
    each_page_of_pairs.sample
  end

  def shm_status
    used = 0
    each_page { |pairs| pairs.each { |pair| used += pair[0].length + pair[1].length } }
    free = @bytes > used ? @bytes - used : 0
    { :free_bytes => free, :total_bytes => @bytes, :used_bytes => used, :free_chunks => 1, :largest_chunk => free }
  end

  def check_consistency
    ask("cacheGet", "")
    true
  end

  def close
    open!
    @is_open = false
    nil
  end

  private

  def open!
    raise MemoryPoolClosed, "Pool is closed" unless @is_open
  end

  def text(key)
    raise TypeError, "expected String for the key" unless key.is_a?(String)
    key
  end

  def ask(operation, *args)
    open!
    Pmilter::Services.ask(operation, @pool, *args)
  end

  def each_page
    cursor = nil
    loop do
      pairs, cursor = ask("cachePairs", cursor)
      yield pairs
      break if cursor.nil?
    end
  end

  def each_page_of_pairs
    all = []
    each_page { |pairs| all.concat(pairs) }
    all
  end
end
