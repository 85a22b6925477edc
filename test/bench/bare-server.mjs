// The least that answers /readyz from a database: what our start is measured against.
import express from 'ROOT/node_modules/express/index.js';
import pg from 'ROOT/node_modules/pg/lib/index.js';

const pool = new pg.Pool({ connectionString: process.env.DATABASE });
await pool.query('SELECT 1');
express()
  .get('/readyz', async (_request, response) => {
    await pool.query('SELECT 1');
    response.json({ status: 'ready' });
  })
  .listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
