# Counts visits in a replicated database.   ruby visits.rb DATABASE-FILE [EXTENSION]
require 'sqlite3'

database = ARGV[0]
extension = ARGV[1] || 'librqvfs'

# Any connection can load the extension; it registers the VFS for the whole process.
loader = SQLite3::Database.new(':memory:')
loader.enable_load_extension(true)
loader.load_extension(extension)
loader.close

# From here on it is plain SQLite: only the connection string names the VFS.
flags = SQLite3::Constants::Open::READWRITE | SQLite3::Constants::Open::CREATE | SQLite3::Constants::Open::URI
connection = SQLite3::Database.new("file:#{database}?vfs=rqvfs", flags: flags)
connection.busy_timeout = 10_000
connection.transaction do # when it is left, the commit is durable
  connection.execute('CREATE TABLE IF NOT EXISTS visits(language TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)')
  connection.execute('INSERT INTO visits(language) VALUES(?)', ['ruby'])
end
puts "ruby: #{connection.get_first_value('SELECT count(*) FROM visits')} visits"
