/** The independent verifier: what it accepts, and a negative test for every field of what it reads (invariant 21). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, readFileSync } from 'node:fs';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkpointBody, type Signer } from '../../src/audit/checkpoint.ts';
import { append, emptyFrontier, leafHash, rootOf } from '../../src/audit/tree.ts';
import { type VerifyFailure, type VerifyOptions, type VerifyResult, verifyExport } from '../../src/audit/verify.ts';
import { every, newSigner, type SyntheticLog, syntheticLine, writeSynthetic } from './synthetic.ts';

interface Published {
  at: string;
  note: string;
  leaves: string[];
}

let folder: string;
let good: SyntheticLog;
let lines: string[];
let published: Published[];
const signer: Signer = newSigner();
const sizes = [1, 2, 10, 300, 301, 700];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-verify-'));
  good = await writeSynthetic(join(folder, 'good'), sizes, signer);
  lines = (await readFile(good.log, 'utf8')).trimEnd().split('\n');
  published = (await readFile(join(good.checkpoints, 'checkpoints.jsonl'), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Published);
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const jsonl = (checkpoints: readonly object[]): string => checkpoints.map((checkpoint) => `${JSON.stringify(checkpoint)}\n`).join('');

/** Verifies a changed copy: `log` as lines or as bytes, `checkpoints` as objects or as text. */
async function check(
  changed: { log?: readonly string[] | Buffer; checkpoints?: readonly object[] | string },
  options: Partial<VerifyOptions> = {},
): Promise<VerifyResult> {
  const place = await mkdtemp(join(folder, 'case-'));
  const paths = { log: join(place, 'log.jsonl'), checkpoints: join(place, 'checkpoints.jsonl') };
  const log = changed.log ?? lines;
  await writeFile(paths.log, Buffer.isBuffer(log) ? log : log.map((line) => `${line}\n`).join(''));
  const checkpoints = changed.checkpoints ?? published;
  await writeFile(paths.checkpoints, typeof checkpoints === 'string' ? checkpoints : jsonl(checkpoints));
  return await verifyExport({ ...paths, key: good.verifierKey, ...options });
}

const id = (index: number): string => `evt_${index.toString(16).padStart(32, '0')}`;

describe('a good log', () => {
  const proven = {
    ok: true,
    entries: 700,
    checkpoints: 6,
    headSealedWithinMs: 1500,
    unsealed: 0,
    lost: [],
    first: { id: id(0), type: 'request.approved', at: '2026-01-02T03:04:05.000Z' },
    last: { id: id(699), type: 'request.approved', at: '2026-01-02T03:05:14.900Z' },
  };
  test('verifies against the published directory, and against the file in it', async () => {
    expect(await verifyExport({ log: good.log, checkpoints: good.checkpoints, key: good.verifierKey })).toEqual(proven);
    expect(await check({})).toEqual(proven);
  });
  test('verifies against one signed note alone, with a newline missing at the end of the log', async () => {
    const note = readFileSync(join(good.checkpoints, 'latest'), 'utf8');
    expect(await check({ checkpoints: note, log: Buffer.from(lines.join('\n')) })).toMatchObject({
      ok: true,
      entries: 700,
      checkpoints: 1,
      headSealedWithinMs: null,
    });
  });
  test('verifies with checkpoints whose JSON is written another way', async () => {
    const spaced = published
      .map((checkpoint) => `${JSON.stringify({ leaves: checkpoint.leaves, note: checkpoint.note }, null, 1).replaceAll('\n', ' ')}\n`)
      .join('');
    expect(await check({ checkpoints: spaced })).toEqual({ ...proven, headSealedWithinMs: null });
  });
  test('verifies when the sealer wrote a line twice', async () => {
    expect(await check({ checkpoints: [...published, published.at(-1) as Published] })).toEqual(proven);
  });
  test('with entries that no checkpoint covers yet is refused, or their number is told', async () => {
    const log = [...lines, syntheticLine(700), syntheticLine(701)];
    expect(await check({ log })).toMatchObject({ ok: false, problem: 'unsealed', index: 700, entry: { id: id(700) }, intactBefore: 700 });
    expect(await check({ log }, { allowUnsealed: true })).toEqual({ ...proven, unsealed: 2 });
    expect(await check({ log: [...lines, 'no event'] }, { allowUnsealed: true })).toMatchObject({ ok: false, problem: 'malformed', index: 700 });
  });
  test('comes in by standard input too', async () => {
    const script = `import { verifyExport } from ${JSON.stringify(new URL('../../src/audit/verify.ts', import.meta.url).href)};
      console.log(JSON.stringify(await verifyExport({ log: '-', checkpoints: process.argv[1], key: process.argv[2] })));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, good.checkpoints, good.verifierKey], {
      stdio: ['pipe', 'pipe', 'inherit'],
      timeout: 20_000,
    });
    createReadStream(good.log, { highWaterMark: 333 }).pipe(child.stdin);
    const [answer] = await Promise.all([new Response(child.stdout as unknown as ReadableStream).text(), once(child, 'close')]);
    expect(JSON.parse(answer)).toEqual(proven);
  });
});

describe('invariant 21: one entry', () => {
  const at = 42;
  const wrong = (index: number, words: RegExp, problem: VerifyFailure['problem'] = 'entry') => ({
    ok: false,
    problem,
    index,
    intactBefore: index,
    message: expect.stringMatching(words) as string,
  });
  test('changed by one byte is named, with both hashes', async () => {
    const changed = (lines[at] as string).replace('step 42', 'step 43');
    expect(await check({ log: lines.with(at, changed) })).toEqual({
      ...wrong(at, /^Entry 42 is not the one that was sealed. Its bytes are not those/),
      entry: { id: id(at), type: 'request.approved', at: '2026-01-02T03:04:09.200Z' },
      expected: published[3]?.leaves[32],
      found: leafHash(changed).toString('hex'),
      checkpoint: 300,
    });
  });
  test('taken out', async () => {
    expect(await check({ log: lines.toSpliced(at, 1) })).toMatchObject({ ...wrong(at, /taken out/), entry: { id: id(at + 1) } });
  });
  test('taken out together with those after it', async () => {
    expect(await check({ log: lines.toSpliced(at, 5) })).toMatchObject(wrong(at, /In its place stands entry 47/));
  });
  test('taken out at the end of the log', async () => {
    expect(await check({ log: lines.slice(0, -1) })).toMatchObject(wrong(699, /ends after 699 entries; the checkpoint covers 700/, 'truncated'));
  });
  test('taken out near the end of the log', async () => {
    expect(await check({ log: lines.toSpliced(650, 1) })).toMatchObject(wrong(650, /taken out/));
  });
  test('put in', async () => {
    expect(await check({ log: lines.toSpliced(at, 0, syntheticLine(9999)) })).toMatchObject({ ...wrong(at, /It was put in/), entry: { id: id(9999) } });
  });
  test('put in as the last one under a checkpoint', async () => {
    expect(await check({ log: lines.toSpliced(299, 0, syntheticLine(9999)) })).toMatchObject(wrong(299, /It was put in/));
  });
  test('put in twice', async () => {
    expect(await check({ log: lines.toSpliced(at + 1, 0, lines[at] as string) })).toMatchObject(wrong(at + 1, /In its place stands entry 42 once more/));
  });
  test('changed places with its neighbour', async () => {
    expect(await check({ log: lines.with(at, lines[at + 1] as string).with(at + 1, lines[at] as string) })).toMatchObject(
      wrong(at, /Entries 42 and 43 have changed places/),
    );
  });
  test('the first, the last under a checkpoint, the last of all', async () => {
    for (const index of [0, 1, 9, 299, 300, 301, 699]) {
      expect(await check({ log: lines.with(index, `${lines[index] as string} `) })).toMatchObject({ ok: false, problem: 'entry', index, intactBefore: index });
    }
  });
  test('with CR LF at its end', async () => {
    expect(await check({ log: Buffer.from(`${lines.join('\r\n')}\r\n`) })).toMatchObject(wrong(0, /CR LF/));
  });
  test('with bytes that are not UTF-8', async () => {
    const bytes = Buffer.from(`${lines.join('\n')}\n`);
    const start = Buffer.byteLength(`${lines.slice(0, at).join('\n')}\n`);
    bytes[bytes.indexOf('é', start)] = 0xff;
    expect(await check({ log: bytes })).toMatchObject(wrong(at, /not valid UTF-8/));
  });
  test('the log cut in the middle of a line', async () => {
    const bytes = Buffer.from(`${lines.join('\n')}\n`);
    expect(await check({ log: bytes.subarray(0, bytes.length - 40) })).toMatchObject(wrong(699, /Its bytes are not those/));
    expect(await check({ log: Buffer.alloc(0) })).toMatchObject({ ok: false, problem: 'truncated', index: 0, intactBefore: 0 });
  });
  test('changed together with its published hash: the range between two signatures is named', async () => {
    const changed = `${lines[at] as string} `;
    const forged = published.with(3, {
      ...(published[3] as Published),
      leaves: (published[3] as Published).leaves.with(32, leafHash(changed).toString('hex')),
    });
    expect(await check({ log: lines.with(at, changed), checkpoints: forged })).toMatchObject({
      ok: false,
      problem: 'consistency',
      range: [10, 299],
      intactBefore: 10,
      checkpoint: 300,
    });
    const garbled = published.with(3, { ...(published[3] as Published), leaves: (published[3] as Published).leaves.with(31, '0'.repeat(64)) });
    expect(await check({ log: lines.with(at, changed), checkpoints: garbled })).toMatchObject({
      ok: false,
      problem: 'entry',
      range: [10, 299],
      intactBefore: 10,
    });
  });
  test('changed, with only a signed note to hold against it: the whole range is named', async () => {
    const note = readFileSync(join(good.checkpoints, 'latest'), 'utf8');
    expect(await check({ checkpoints: note, log: lines.with(at, '{}') })).toMatchObject({ ok: false, problem: 'entry', range: [0, 699] });
    expect(await check({ checkpoints: note, log: lines.slice(0, 500) })).toMatchObject({ ok: false, problem: 'truncated', index: 500 });
  });
});

test('invariant 21: whatever one byte of the log is changed, the entry that holds it is named', async () => {
  const bytes = Buffer.from(`${lines.join('\n')}\n`);
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 2), fc.integer({ min: 1, max: 255 }), async (at, mask) => {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ mask;
      const index = bytes.subarray(0, at).filter((byte) => byte === 10).length;
      const result = await check({ log: changed });
      expect(result).toMatchObject({ ok: false, problem: 'entry', index, intactBefore: index });
    }),
    { numRuns: 60 },
  );
});

describe('invariant 21: one field of the checkpoints', () => {
  const third = () => published[3] as Published;
  const noteOf = (size: number, upTo = size): string => {
    const frontier = emptyFrontier();
    for (const line of lines.slice(0, upTo)) append(frontier, leafHash(line));
    return signer.sign(checkpointBody({ origin: signer.name, size, root: rootOf(frontier) }));
  };
  test('a byte of any signature', async () => {
    for (const [number, checkpoint] of published.entries()) {
      const note = checkpoint.note.replace(/(.)(=*)\n$/, (_, last: string, pad: string) => `${last === 'A' ? 'Q' : 'A'}${pad}\n`);
      const result = await check({ checkpoints: published.with(number, { ...checkpoint, note }) });
      expect(result).toMatchObject({ ok: false, intactBefore: sizes[number - 1] ?? 0 });
      expect(['checkpoint-signature', 'malformed']).toContain((result as VerifyFailure).problem);
    }
  });
  test('the size, the root or the origin in a note', async () => {
    for (const note of [
      third().note.replace('\n300\n', '\n299\n'),
      third().note.replace(/\n300\n./, '\n300\nZ'),
      third().note.replace('halligan.example.com', 'halligan.example.org'),
    ]) {
      expect(await check({ checkpoints: published.with(3, { ...third(), note }) })).toMatchObject({
        ok: false,
        problem: 'checkpoint-signature',
        intactBefore: 10,
      });
    }
  });
  test('a signature by another key of the same name', async () => {
    const other = newSigner();
    const note = other.sign(third().note.slice(0, third().note.indexOf('\n\n') + 1));
    expect(await check({ checkpoints: published.with(3, { ...third(), note }) })).toMatchObject({ ok: false, problem: 'checkpoint-signature' });
    expect(await check({}, { key: other.verifierKey })).toMatchObject({ ok: false, problem: 'checkpoint-signature', intactBefore: 0 });
  });
  test('a published hash', async () => {
    const leaves = third().leaves.with(32, '0'.repeat(64));
    expect(await check({ checkpoints: published.with(3, { ...third(), leaves }) })).toMatchObject({
      ok: false,
      problem: 'leaf-list',
      index: 42,
      expected: third().leaves[32],
      found: '0'.repeat(64),
    });
  });
  test('a hash that is none', async () => {
    for (const leaf of ['zz'.repeat(32), 'ab', 7]) {
      const leaves = third().leaves.map((known, i) => (i === 5 ? leaf : known));
      expect(await check({ checkpoints: published.with(3, { ...third(), leaves } as Published) })).toMatchObject({
        ok: false,
        problem: 'malformed',
        intactBefore: 10,
      });
    }
  });
  test('a hash too few or too many', async () => {
    for (const leaves of [third().leaves.slice(1), [...third().leaves, '0'.repeat(64)]]) {
      expect(await check({ checkpoints: published.with(3, { ...third(), leaves }) })).toMatchObject({
        ok: false,
        problem: 'missing-checkpoint',
        intactBefore: 10,
      });
    }
  });
  test('a checkpoint taken out of the middle, or the first', async () => {
    expect(await check({ checkpoints: published.toSpliced(3, 1) })).toMatchObject({ ok: false, problem: 'missing-checkpoint', intactBefore: 10 });
    expect(await check({ checkpoints: published.toSpliced(0, 1) })).toMatchObject({ ok: false, problem: 'missing-checkpoint', intactBefore: 0 });
  });
  test('the last checkpoint taken out, or all', async () => {
    expect(await check({ checkpoints: published.slice(0, -1) })).toMatchObject({ ok: false, problem: 'unsealed', index: 301 });
    expect(await check({ checkpoints: [] })).toMatchObject({ ok: false, problem: 'missing-checkpoint' });
    expect(await check({ checkpoints: [], log: [] })).toMatchObject({ ok: false, problem: 'missing-checkpoint' });
  });
  test('checkpoints in another order', async () => {
    expect(await check({ checkpoints: [...published, third()] })).toMatchObject({ ok: false, problem: 'checkpoint-order', intactBefore: 700 });
    expect(await check({ checkpoints: [published[1], published[0], ...published.slice(2)] as Published[] })).toMatchObject({
      ok: false,
      problem: 'missing-checkpoint',
    });
  });
  test('a line that is no checkpoint, or torn', async () => {
    for (const text of ['{"note":7,"leaves":[]}\n', '{}\n', 'null\n', '{"note":"x","leaves":[]}\n', '[]\n', jsonl(published).slice(0, -30)]) {
      expect(await check({ checkpoints: text })).toMatchObject({ ok: false, problem: 'malformed' });
    }
  });
  test('a second tree, properly signed by our key', async () => {
    const forked = lines.with(5, syntheticLine(4242));
    const frontier = emptyFrontier();
    for (const line of forked.slice(0, 300)) append(frontier, leafHash(line));
    const note = signer.sign(checkpointBody({ origin: signer.name, size: 300, root: rootOf(frontier) }));
    const checkpoints = published.with(3, { ...third(), note });
    expect(await check({ checkpoints })).toMatchObject({ ok: false, problem: 'consistency', range: [10, 299], intactBefore: 10 });
    expect(await check({ checkpoints, log: forked })).toMatchObject({ ok: false, problem: 'entry', index: 5 });
  });
  test('a proper signature under a size that is not the tree’s', async () => {
    expect(await check({ checkpoints: published.with(3, { ...third(), note: noteOf(300, 299) }) })).toMatchObject({
      ok: false,
      problem: 'consistency',
      checkpoint: 300,
    });
  });
  test('`latest`: beyond the list, of another root, or unsigned', async () => {
    const directory = join(folder, 'latest-case');
    await cp(good.checkpoints, directory, { recursive: true });
    const options = { log: good.log, checkpoints: directory, key: good.verifierKey };
    await writeFile(join(directory, 'latest'), noteOf(701, 700));
    expect(await verifyExport(options)).toMatchObject({ ok: false, problem: 'missing-checkpoint', checkpoint: 701 });
    await writeFile(join(directory, 'latest'), noteOf(300, 299));
    expect(await verifyExport(options)).toMatchObject({ ok: false, problem: 'consistency', checkpoint: 300 });
    await writeFile(join(directory, 'latest'), noteOf(300).replace('\n300\n', '\n301\n'));
    expect(await verifyExport(options)).toMatchObject({ ok: false, problem: 'checkpoint-signature' });
    await rm(join(directory, 'latest'));
    expect(await verifyExport(options)).toMatchObject({ ok: true });
  });
});

test('a key that is none, and files that are not there, are said in words', async () => {
  expect(await check({}, { key: 'halligan' })).toMatchObject({ ok: false, problem: 'key' });
  expect(await check({}, { log: join(folder, 'nowhere') })).toMatchObject({
    ok: false,
    problem: 'unreadable',
    message: expect.stringContaining('ENOENT') as string,
  });
  expect(await check({}, { checkpoints: join(folder, 'nowhere') })).toMatchObject({ ok: false, problem: 'unreadable' });
});

test('a large log is verified by two threads, and what is wrong in it is named all the same', async () => {
  const count = 45_000;
  const large = await writeSynthetic(join(folder, 'large'), every(4_000, count));
  const options = { log: large.log, checkpoints: large.checkpoints, key: large.verifierKey };
  const told: number[] = [];
  const last = { id: id(count - 1), type: 'request.approved', at: '2026-01-02T04:19:04.900Z' };
  expect(await verifyExport({ ...options, onProgress: (entries) => told.push(entries) })).toMatchObject({
    ok: true,
    entries: count,
    checkpoints: 12,
    last,
    first: { id: id(0) },
    headSealedWithinMs: 1500,
  });
  expect(told.at(-1)).toBe(count);
  const bytes = await readFile(large.log);
  expect(bytes.length).toBeGreaterThan(17_000_000);
  bytes[bytes.length - 9] = (bytes[bytes.length - 9] ?? 0) ^ 1;
  await writeFile(large.log, bytes);
  expect(await verifyExport(options)).toMatchObject({ ok: false, problem: 'entry', index: count - 1, entry: {} });
  await writeFile(large.log, Buffer.concat([await readFile(large.log), Buffer.from('\n')]));
  expect(await verifyExport(options)).toMatchObject({ ok: false, problem: 'entry', index: count - 1 });
});

test('invariant 21: the verifier imports nothing but its own parts and Node', async () => {
  const room = new URL('../../src/audit/', import.meta.url);
  const parts = (await readdir(room)).filter((name) => /^verify.*\.ts$/.test(name));
  expect(parts).toContain('verify.ts');
  for (const part of parts) {
    const source = await readFile(new URL(part, room), 'utf8');
    const imported = [...source.matchAll(/(?:\bfrom|\bimport|\brequire\(|\bimport\()\s*'([^']+)'/g)].map((match) => match[1] as string);
    for (const name of imported) {
      const allowed = name.startsWith('node:') ? builtinModules.includes(name.slice(5)) : parts.includes(name.replace('./', ''));
      expect(allowed, `${part} imports ${name}`).toBe(true);
    }
  }
});
