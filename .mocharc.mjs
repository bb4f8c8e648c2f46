// `mocha` runs all compiled tests; with files it runs those. Sources need no build: `mocha --import=tsx --no-experimental-require-module test/….test.ts`.
// (Without the second, what is required and what is imported are two instances of each module.)
const named = process.argv.slice(2).filter((argument) => /\.test\.[jt]s$/.test(argument));
const sources = named.some((file) => file.endsWith('.ts'));
const [support, extension] = sources ? ['./test/support', 'ts'] : ['./dist/test/support', 'js'];

export default {
  ...(named.length > 0 ? {} : { spec: ['dist/test/**/*.test.js'] }),
  require: [`${support}/hooks.${extension}`],
  reporter: `${support}/reporter.${extension}`,
  timeout: 60_000,
  exit: false,
};
