// Takes its time, waiting or spinning, and says in which instance and when: milliseconds of the one clock that
// all processes of the machine share.
const now = () => Number(process.hrtime.bigint()) / 1e6

exports.main = async ({ wait = 0, spin = 0 }) => {
  const began = now()
  while (now() < began + spin);
  if (wait) await new Promise((resolve) => setTimeout(resolve, wait))
  return { instance: process.env.CLOUDLET_INSTANCE, began, ended: now() }
}
