// `mocha` runs the compiled tests; `mocha --import tsx test/….test.ts` runs sources, for a quick loop without a build.
const sources = process.argv.some((argument) => argument.endsWith('.ts'));
const support = sources ? './test/support' : './dist/test/support';
const extension = sources ? 'ts' : 'js';

export default {
  ...(sources ? {} : { spec: ['dist/test/**/*.test.js'] }),
  require: [`${support}/hooks.${extension}`],
  reporter: `${support}/reporter.${extension}`,
  timeout: 60_000,
  exit: false,
};
