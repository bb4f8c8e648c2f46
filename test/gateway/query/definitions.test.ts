import { expect } from 'chai';
import { startQueryRest, type QueryAnswerBody, type QueryRest } from './support/query-rest.ts';

const seed = `
  CREATE TYPE public.mood AS ENUM ('sad', 'glad');
  CREATE TABLE public.notes (id int PRIMARY KEY, owner text NOT NULL, moods public.mood[]);
  INSERT INTO public.notes VALUES (1, 'ann', '{sad}'), (2, 'bob', '{glad}');
  CREATE POLICY own ON public.notes USING (owner = current_setting('headwater.user_id', true));
  CREATE PUBLICATION headwater FOR TABLE ONLY public.notes`;

/** What changes a definition is in no event until the next change of a row, and perhaps not even then. */
describe('queries, from the moment at which a definition is changed', function () {
  this.timeout(120_000);
  let rest: QueryRest;
  before(async () => {
    rest = await startQueryRest({ seed });
  });
  after(() => rest?.close());

  const query = { from: 'notes', orderBy: [{ field: 'id', dir: 'asc' }] };
  const keep = async (): Promise<void> => {
    for (let n = 0; (await rest.post(query)).body.cache !== 'hit'; n++) expect(n, 'answers to be kept').to.be.below(200);
  };
  const ids = ({ body }: QueryAnswerBody): unknown[] => body.items.map((item) => item['id']);

  it('no kept answer of before is given, nor one of another owner', async () => {
    for (let n = 0; n < 5; n++) {
      await keep();
      await rest.sql('ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY');
      for (const [as, own] of [
        ['bob', [2]],
        ['secret', [1]],
      ] as const) {
        const answer = await rest.post(query, as);
        expect([answer.body.cache, ids(answer)]).to.deep.equal(['miss', own]);
      }
      await rest.sql('ALTER TABLE public.notes DISABLE ROW LEVEL SECURITY');
      expect(ids(await rest.post(query, 'bob'))).to.deep.equal([1, 2]);
    }
  });

  it('answers are of the new one', async () => {
    const changes: [string, Record<string, unknown>][] = [
      [`ALTER TYPE public.mood RENAME VALUE 'sad' TO 'blue'`, { id: 1, owner: 'ann', moods: ['blue'] }],
      ['ALTER TABLE public.notes ADD COLUMN stars int DEFAULT 5', { id: 1, owner: 'ann', moods: ['blue'], stars: 5 }],
      ['ALTER TABLE public.notes ALTER COLUMN stars TYPE text', { id: 1, owner: 'ann', moods: ['blue'], stars: '5' }],
      ['ALTER TABLE public.notes RENAME COLUMN moods TO felt', { id: 1, owner: 'ann', felt: ['blue'], stars: '5' }],
      ['ALTER TABLE public.notes DROP COLUMN stars', { id: 1, owner: 'ann', felt: ['blue'] }],
      [
        `BEGIN; ALTER TABLE public.notes RENAME TO old; CREATE TABLE public.notes (id int PRIMARY KEY, owner text); INSERT INTO public.notes VALUES (7, 'ann');
         ALTER PUBLICATION headwater ADD TABLE ONLY public.notes; COMMIT`,
        { id: 7, owner: 'ann' },
      ],
    ];
    for (const [statement, expected] of changes) {
      await keep();
      await rest.sql(statement);
      const { body, text } = await rest.post(query);
      expect(body.items?.[0], `${statement}: ${text}`).to.deep.equal(expected);
    }
  });

  it('also while it is changed again and again, and many ask', async () => {
    await rest.sql(`CREATE TABLE public.turns (id int PRIMARY KEY, owner text NOT NULL);
      INSERT INTO public.turns VALUES (1, 'ann'), (2, 'bob');
      CREATE POLICY own ON public.turns USING (owner = current_setting('headwater.user_id', true));
      ALTER PUBLICATION headwater ADD TABLE ONLY public.turns`);
    /** Row security, as it was after the last change that has come to its end; undefined while it is changed. */
    let guarded: boolean | undefined = false;
    let changes = 0;
    let done = false;
    const changing = (async () => {
      for (let on = true; changes < 14; on = !on) {
        guarded = undefined;
        changes++;
        await rest.sql(`ALTER TABLE public.turns ${on ? 'ENABLE' : 'DISABLE'} ROW LEVEL SECURITY`);
        guarded = on;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    })().finally(() => (done = true));
    const counts = { sure: 0, hit: 0 };
    const asking = Array.from({ length: 6 }, async (_, n) => {
      const own = n % 2 === 0 ? 1 : 2;
      while (!done) {
        const before = [guarded, changes];
        const answer = await rest.post({ from: 'turns', select: ['id'], orderBy: query.orderBy }, n % 2 === 0 ? 'secret' : 'bob');
        expect(answer.status, answer.text).to.be.oneOf([200, 503]);
        if (answer.status !== 200) continue;
        if (answer.body.cache === 'hit') counts.hit++;
        const found = ids(answer);
        // Changed meanwhile: either may be right.
        if (before[0] === undefined || before[1] !== changes) expect([[1, 2], [own]]).to.deep.include(found);
        else {
          counts.sure++;
          expect(found).to.deep.equal(before[0] === true ? [own] : [1, 2]);
        }
      }
    });
    await Promise.all([changing, ...asking]);
    expect(counts.sure).to.be.above(10);
    expect(counts.hit).to.be.above(0);
  });
});
