//! A connection whose other end has to take what is sent to it, and is cut off where it does not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::counts::Counts;
use super::guests::Guest;
use super::limits::READER_PATIENCE;

/// The connection, and how long its reader has taken nothing.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    stuck: Option<Pin<Box<Sleep>>>,
    counts: Arc<Counts>,
    /// Who hears when everything is sent.
    guest: Arc<Guest>,
}

impl<S> Patient<S> {
    pub(super) const fn new(stream: S, counts: Arc<Counts>, guest: Arc<Guest>) -> Self {
        Self { stream, stuck: None, counts, guest }
    }

    /// What a write came to. One that has to wait does so only until the patience ends.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + READER_PATIENCE)));
        ready!(stuck.as_mut().poll(cx));
        self.counts.cut_off();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.guest.sent();
        }
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut_off_and_counted_and_who_reads_slowly_is_not() {
        let counts = Arc::<Counts>::default();
        let (near, mut far) = duplex(10);
        let guest = Arc::new(Guest::new([127, 0, 0, 1].into()));
        let mut patient = Patient::new(near, Arc::clone(&counts), guest);
        patient.write_all(&[0; 10]).await.unwrap();
        let reading = async {
            for _ in 0..3 {
                tokio::time::sleep(READER_PATIENCE / 2).await;
                far.read_exact(&mut [0; 10]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(patient.write_all(&[0; 30]), reading);
        written.unwrap();
        assert_eq!(counts.snapshot().cut_off, 0);
        let error = patient.write_all(&[0; 11]).await.unwrap_err();
        assert_eq!((error.kind(), counts.snapshot().cut_off), (io::ErrorKind::TimedOut, 1));
    }
}
