# IO and File of mruby-io, for regular files.
class IO
  SEEK_SET = 0
  SEEK_CUR = 1
  SEEK_END = 2

  def self.file(operation, *args)
    result = Pmilter::Services.file(operation, *args)
    return result unless result.is_a?(Array) && result[0] == "error"
    _, code, message = result
    case code
    when "IO" then raise IOError, message
    when "ARG" then raise ArgumentError, message
    end
    raise Errno.const_get(code), message if Errno.const_defined?(code)
    raise SystemCallError, message
  end

  def self.read(path, length = nil, offset = 0)
    File.open(path) do |file|
      file.seek(offset)
      file.read(length)
    end
  end

  def self.readlines(path)
    File.open(path) { |file| file.readlines }
  end

  def self.foreach(path, &block)
    File.open(path) { |file| file.each_line(&block) }
    nil
  end

  def self.write(path, text)
    File.open(path, "w") { |file| file.write(text) }
  end
end

class File < IO
  SEPARATOR = "/"

  def self.open(path, mode = "r", permissions = 0o666)
    file = new(path, mode, permissions)
    return file unless block_given?
    begin
      yield file
    ensure
      file.close unless file.closed?
    end
  end

  def self.text(path)
    raise TypeError, "expected String for a path" unless path.is_a?(String)
    path
  end

  def self.exist?(path) = file("exists", text(path))
  def self.exists?(path) = file("exists", text(path))
  def self.file?(path) = file("isFile", text(path))
  def self.directory?(path) = file("isDirectory", text(path))
  def self.pipe?(path) = file("isPipe", text(path))
  def self.socket?(path) = file("isSocket", text(path))
  def self.symlink?(path) = file("isLink", text(path))
  def self.size(path) = file("size", text(path))
  def self.mtime(path) = Time.at(file("mtime", text(path)))
  def self.readlink(path) = file("readlink", text(path))
  def self.realpath(path) = file("realpath", text(path))
  def self.basename(path, suffix = "") = file("basename", text(path), suffix)
  def self.dirname(path) = file("dirname", text(path))
  def self.extname(path) = file("extname", text(path))
  def self.expand_path(path, folder = nil) = file("expand", text(path), folder)
  def self.join(*parts) = parts.empty? ? "" : file("join", parts.flatten)

  def self.size?(path)
    exist?(path) && size(path) > 0 ? size(path) : nil
  end

  def self.zero?(path)
    exist?(path) && size(path) == 0
  end

  def self.rename(from, to)
    file("rename", text(from), text(to))
    0
  end

  def self.delete(*paths)
    paths.each { |path| file("delete", text(path)) }
    paths.length
  end

  def self.unlink(*paths) = delete(*paths)

  def self.chmod(mode, *paths)
    paths.each { |path| file("chmod", mode, text(path)) }
    paths.length
  end

  attr_reader :path

  def initialize(path, mode = "r", permissions = 0o666)
    @path = File.text(path)
    @number = IO.file("open", @path, mode, permissions)
  end

  def to_path = @path
  def fileno = @number
  def close = IO.file("close", @number)
  def closed? = !IO.file("isOpen", @number)
  def read(length = nil) = IO.file("read", @number, length)
  def sysread(length) = IO.file("read", @number, length) || raise(EOFError, "end of file reached")
  def gets(*) = IO.file("gets", @number)
  def getc = IO.file("getc", @number)
  def readline(*) = gets || raise(EOFError, "end of file reached")
  def readchar = getc || raise(EOFError, "end of file reached")
  def eof? = IO.file("isAtEnd", @number)
  def eof = eof?
  def pos = IO.file("position", @number)
  def tell = pos
  def rewind = seek(0)
  def seek(offset, whence = 0) = IO.file("seek", @number, offset, whence)
  def sysseek(offset, whence = 0) = seek(offset, whence) && pos
  def write(text) = IO.file("write", @number, text.to_s)
  def syswrite(text) = write(text)
  def flush = self
  def sync = true
  def isatty = false
  def tty? = false

  def pos=(offset)
    seek(offset)
  end

  def sync=(value)
    value
  end

  def <<(text)
    write(text)
    self
  end

  def print(*values)
    values.each { |value| write(value) }
    nil
  end

  def puts(*values)
    values = [""] if values.empty?
    values.flatten.each { |value| write(value.to_s.end_with?("\n") ? value : "#{value}\n") }
    nil
  end

  def printf(*values)
    write(sprintf(*values))
    nil
  end

  def each_line
    while (line = gets)
      yield line
    end
    self
  end

  def each(&block) = each_line(&block)

  def each_char
    while (char = getc)
      yield char
    end
    self
  end

  def each_byte
    read.bytes.each { |byte| yield byte }
    self
  end

  def readlines
    lines = []
    each_line { |line| lines << line }
    lines
  end

  def flock(_mode)
    raise NotImplementedError, "File#flock is not here: lock a Mutex"
  end
end
