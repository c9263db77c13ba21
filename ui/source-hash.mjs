// The hash that ties ui/dist to the sources it was built from, written to ui/dist/SOURCE by `npm run build`.
//
// Algorithm (a test of the server recomputes it, so keep both the same):
//   files  = every regular file below ui/src, plus ui/index.html and ui/package-lock.json
//   names  = their paths relative to ui/, with '/' as separator, sorted by the bytes of their UTF-8 form
//   hash   = SHA-256 over, for each name in order:  name  0x00  decimal length of the file's bytes  0x00  the file's bytes
//   SOURCE = the hash in lower-case hex followed by one '\n'
//
// Without an argument it prints the hash; with --write it writes dist/SOURCE; with --check it exits 1 when they differ.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(fileURLToPath(import.meta.url));

function filesBelow(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const name = `${folder}/${entry.name}`;
    return entry.isDirectory() ? filesBelow(name) : entry.isFile() ? [name] : [];
  });
}

export function sourceHash() {
  const names = [...filesBelow('src'), 'index.html', 'package-lock.json'];
  names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const hash = createHash('sha256');
  for (const name of names) {
    const bytes = readFileSync(join(root, name));
    hash.update(name).update('\0').update(String(bytes.length)).update('\0').update(bytes);
  }
  return hash.digest('hex');
}

const option = process.argv[2];
const target = join(root, 'dist', 'SOURCE');
if (option === '--write') {
  writeFileSync(target, `${sourceHash()}\n`);
} else if (option === '--check') {
  const built = readFileSync(target, 'utf8').trim();
  if (built !== sourceHash()) {
    console.error('ui/dist is older than ui/src: run `npm run build` in ui/ and commit dist');
    process.exit(1);
  }
} else {
  console.log(sourceHash());
}
